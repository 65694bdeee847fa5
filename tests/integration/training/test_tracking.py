"""Runs are tracked in MLflow, or in Weights & Biases by one setting; a run that fails says so."""

import json
import struct
from pathlib import Path

import dagster as dg
import mlflow
import pytest
from transformers import TrainerCallback

from tests.unit.vlm_assets.training.inputs import tiny_inputs
from vlm_assets.errors import ConfigError, TrainingError
from vlm_assets.resources import TrackerResource
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import fit


def materialize(tracker: TrackerResource, fails: bool = False) -> dg.ExecuteInProcessResult:
    @dg.asset
    def model(context: dg.AssetExecutionContext, tracker: TrackerResource) -> None:
        with tracker.run(context, "training") as run:
            run.log_params({"learning_rate": 0.5})
            run.set_tags({"data_version": "d1", "code_version": "c1"})
            for step in (10, 20):
                run.log_metric("loss", 1 / step, step)
            run.log_metrics({"cider": 4.5})
            if fails:
                raise ValueError("broken")

    return dg.materialize([model], resources={"tracker": tracker}, raise_on_error=False)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_in_mlflow_has_curves_versions_and_an_honest_end(fails: bool, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    result = materialize(TrackerResource(uri=uri), fails)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("captioner")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == ("FAILED" if fails else "FINISHED")
    assert run.data.params["learning_rate"] == "0.5"
    assert {key: run.data.tags[key] for key in ("data_version", "code_version", "dagster_run")} == {
        "data_version": "d1", "code_version": "c1", "dagster_run": result.run_id,
    }  # fmt: skip
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == [
        (10, 0.1), (20, 0.05),
    ]  # fmt: skip


class StopsAt25(TrainerCallback):
    """What a full disk or a lost GPU does to a training: an error in the middle of it."""

    def on_step_end(self, args, state, control, **_) -> None:
        if state.global_step == 25:
            raise TrainingError("the GPU fell off the bus")


def test_a_training_that_fails_on_its_way_is_failed_and_keeps_its_curve_until_then(tmp_path: Path) -> None:
    inputs = tiny_inputs(tmp_path / "inputs")
    config = FinetuneConfig(steps=40, batch_size=4, precision="fp32", threads=1, attention="fused")

    @dg.asset
    def model(context: dg.AssetExecutionContext, tracker: TrackerResource) -> None:
        with tracker.run(context, "finetuned_model") as run:
            fit(inputs, config, tmp_path / "scratch", context.log.info, run.log_metric, [StopsAt25()])

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(TrainingError, match="fell off the bus"):
        dg.materialize([model], resources={"tracker": TrackerResource(uri=uri)})
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs(["1"])
    assert run.info.status == "FAILED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train_loss")] == [1, 10, 20]


@pytest.mark.parametrize("fails", [False, True])
def test_one_setting_sends_runs_to_wandb(fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_TRACKER", "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    for folder in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(folder, str(tmp_path / folder.lower()))
    result = materialize(TrackerResource(), fails)
    assert result.success is not fails
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (record,) = run.glob("run-*.wandb")
    content = record.read_bytes()
    for word in (b"learning_rate", b"data_version", result.run_id.encode(), b"cider", b"loss_step"):
        assert word in content
    assert exit_code(record) == int(fails)


def exit_code(record: Path) -> int:
    """The exit code that the run's own log ends with: LevelDB's log format, blocks of 32 KiB, behind 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = record.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            message = Record.FromString(whole)
            whole = b""
            if message.HasField("exit"):
                return int(message.exit.exit_code)
    raise AssertionError("the run has no end")


def test_an_unknown_tracker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_TRACKER", "tensorboard")
    with (
        pytest.raises(ConfigError, match="VLM_TRACKER is 'tensorboard'; it takes mlflow or wandb"),
        TrackerResource().run(dg.build_asset_context(), "training"),
    ):
        pass


def test_system_metrics_are_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    uri = f"sqlite:///{tmp_path}/mlflow.db"

    @dg.asset
    def model(context: dg.AssetExecutionContext, tracker: TrackerResource) -> None:
        import time

        with tracker.run(context, "training"):
            time.sleep(2)

    dg.materialize([model], resources={"tracker": TrackerResource(uri=uri)})
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs(["1"])
    assert any(name.startswith("system/cpu") for name in run.data.metrics), json.dumps(sorted(run.data.metrics))
