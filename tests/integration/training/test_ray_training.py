"""Two workers on a real Ray, submitted through Dagster Pipes: the same training, and it outlives a worker."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import numpy as np
import psutil
import pytest

from tests.integration.training.conftest import Trajectory, assert_equal, result_of, sealed
from tests.integration.training.killed_training import run
from tests.integration.training.small_inputs import SETTINGS, as_dict, fit_and_keep
from vlm_assets.children import end_with_parent
from vlm_assets.errors import TrainingError
from vlm_assets.training.checkpoints import COMPLETE
from vlm_assets.training.checks import LOSS_FELL
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import Inputs
from vlm_assets.training.ray_submit import train_on_ray
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner

CLONE = Path(__file__).parents[3]
TWO = {**SETTINGS, "batch_size": 4, "workers": 2}
LONG = {**TWO, "steps": 400}  # time enough to be killed in


def start_asset(inputs: Inputs, home: Path, config: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """`finetuned_model` in a process that loads nothing else."""
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.training.asset_run", str(home)]
    return subprocess.Popen(
        [*command, json.dumps(as_dict(inputs)), json.dumps(config)], cwd=CLONE, preexec_fn=end_with_parent
    )


HEAD = """
import sys, ray
ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def standing_ray() -> Iterator[str]:
    """The address of a Ray that is there before the training and after it."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(CLONE)}
    head = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment, preexec_fn=end_with_parent,
    )  # fmt: skip
    assert head.stdin is not None and head.stdout is not None
    try:
        yield head.stdout.readline().strip()
        assert head.poll() is None
    finally:
        head.stdin.close()
        head.wait(60)


@pytest.fixture
def on_standing_ray(standing_ray: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings go there: a Ray of their own takes half a minute to start."""
    monkeypatch.setenv("VLM_RAY_ADDRESS", standing_ray)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def workers() -> list[psutil.Process]:
    """Training workers below this process."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "RayTrainWorker" in " ".join(process.cmdline()[:1])]


def test_two_workers_train_as_one_does_and_the_code_location_stays_light(
    inputs: Inputs, trajectory: Trajectory, tmp_path: Path
) -> None:
    assert start_asset(inputs, tmp_path, TWO).wait(280) == 0
    outcome, training = result_of(tmp_path)
    assert_equal(training, trajectory)
    assert outcome["loaded"] == []  # neither torch nor transformers nor Ray
    passed, seen = outcome["checks"][LOSS_FELL]
    assert passed
    assert (seen["first_loss"], seen["last_loss"]) == (training.losses[0], training.losses[-1])
    assert outcome["metadata"]["device"] == "cpu in fp32: as configured"
    assert outcome["metadata"]["curves"].startswith("![loss curves](data:image/png;base64,iVBORw0KGgo")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (tracked,) = client.search_runs(["1"])
    points = client.get_metric_history(tracked.info.run_id, "finetune/train_loss")
    assert [[point.step, point.value] for point in points] == training.summary["train_loss"]
    (made,) = (tmp_path / "store" / "finetuned_model").iterdir()
    bundle = open_bundle(made / "bundle")
    assert bundle.version == training.summary["bundle_version"]
    assert Captioner(bundle, threads=1).check_golden() == 2  # the picture, and it as a large JPEG
    card = (bundle.path / "README.md").read_text()
    assert re.search(r"\| validation cider \| [\d.]+ \([\d.]+ to [\d.]+\), n = 8 \|", card)


class Submitted:
    """One training submitted from this process, with what came back of it and when."""

    def __init__(self, inputs: Inputs, config: dict[str, Any], home: Path) -> None:
        self.points: list[tuple[str, float, int]] = []
        self.under_way: list[bool] = []  # for each point: whether the workers had not left their result yet
        out, scratch = home / "out", home / "scratch"
        out.mkdir(parents=True)
        scratch.mkdir()

        def metric(*point: Any) -> None:
            self.points.append(point)
            self.under_way.append(not (scratch / "trained").exists())

        @dg.asset
        def candidate(context: dg.AssetExecutionContext):
            work = (out, inputs, FinetuneConfig(**config), {"by": "test"}, scratch)
            self.summary, self.checks = train_on_ray(context, *work, metric)
            return dg.MaterializeResult()

        instance = dg.DagsterInstance.ephemeral()
        result = dg.materialize([candidate], instance=instance)
        self.lines = [entry.user_message for entry in instance.all_logs(result.run_id)]

    def curve(self, name: str) -> list[list[Any]]:
        """The points of one curve, as they came."""
        return [[step, value] for other, value, step in self.points if other == name]


@pytest.mark.usefixtures("on_standing_ray")
def test_a_killed_worker_costs_steps_and_not_the_training(inputs: Inputs, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        """Kill one training worker as soon as there is a checkpoint to go back to."""
        while not list(tmp_path.glob(f"scratch/checkpoint-*/{COMPLETE}")):
            time.sleep(0.02)
        victim = workers()[0]
        victim.kill()
        killed.append(victim.pid)

    watcher = threading.Thread(target=kill_one, daemon=True)
    watcher.start()
    done = Submitted(inputs, LONG, tmp_path)
    assert killed
    assert done.summary["resumed_from_step"] >= 10
    assert done.curve("train_loss") == done.summary["train_loss"]  # none lost, none twice
    assert done.curve("val_cider") == done.summary["val_cider"]
    assert done.under_way[0]  # it came while they trained
    (check,) = done.checks
    assert check.passed and check.check_name == LOSS_FELL
    assert any("training with 2 workers on a Ray cluster" in line for line in done.lines)
    assert any("resuming from step" in line for line in done.lines)
    (alone := tmp_path / "alone").mkdir()
    assert run(fit_and_keep, inputs, {**LONG, "batch_size": 8, "workers": 1}, alone) == 0
    np.testing.assert_allclose(  # over 400 steps, rounding grows to some thousandths
        [loss for _, loss in done.summary["train_loss"]], Trajectory.read(alone).losses, rtol=1e-2
    )


@pytest.mark.usefixtures("on_standing_ray")
def test_what_a_person_must_mend_comes_back_as_one_message_and_is_not_tried_again(
    inputs: Inputs, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError) as error:
        Submitted(inputs, {**TWO, "frozen_vision_layers": 40}, tmp_path)
    assert str(error.value).startswith("frozen_vision_layers is 40, the picture encoder has")


@pytest.mark.usefixtures("on_standing_ray")
def test_a_standing_ray_trains_the_same(inputs: Inputs, trajectory: Trajectory, tmp_path: Path) -> None:
    Submitted(inputs, TWO, tmp_path)
    assert_equal(sealed(tmp_path / "out"), trajectory)


@pytest.fixture(scope="module")
def uninterrupted(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """What a killed asset must come to when it is run again."""
    home = tmp_path_factory.mktemp("uninterrupted")
    assert start_asset(inputs, home, LONG).wait(200) == 0
    return result_of(home)[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("where", ["local", pytest.param("standing", marks=pytest.mark.slow)])
def test_an_asset_killed_with_its_ray_leaves_nobody_behind_and_goes_on_when_run_again(
    where: str, inputs: Inputs, uninterrupted: Trajectory, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if where == "standing":
        request.getfixturevalue("on_standing_ray")
    asset = start_asset(inputs, tmp_path, LONG)
    while not list(tmp_path.glob(f"store/.vlm/scratch/*/checkpoint-*/{COMPLETE}")):
        assert asset.poll() is None
        time.sleep(0.02)
    below = {*psutil.Process(asset.pid).children(recursive=True), *workers()}
    assert len(below) > 2  # the driver and its workers
    asset.kill()
    asset.wait()
    _, alive = psutil.wait_procs(below, 30)
    assert not alive
    assert start_asset(inputs, tmp_path, LONG).wait(200) == 0
    again = result_of(tmp_path)[1]
    assert again.summary["resumed_from_step"] >= 10
    assert again.summary["train_loss"] == uninterrupted.summary["train_loss"]
    assert all((again.weights[name] == weight).all() for name, weight in uninterrupted.weights.items())
