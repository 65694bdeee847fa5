"""SIGKILL to `finetuned_model` itself, at random moments, then the same run again: the same bundle, bit for bit."""

import random
import time
from pathlib import Path

import mlflow
import pytest
import torch

from tests.integration.training.asset_run import main
from tests.integration.training.conftest import Trajectory, result_of
from tests.integration.training.killed_training import run, start
from tests.integration.training.small_inputs import SETTINGS, as_dict, fit_and_keep
from vlm_assets.training.checkpoints import COMPLETE, step_of
from vlm_assets.training.checks import LOSS_FELL
from vlm_assets.training.finetune import Inputs

CONFIG = {**SETTINGS, "steps": 100, "precision": "auto"}
CHANCE = random.Random()
# three times, some milliseconds after the checkpoint of a step; the last while the bundle is written
MOMENTS = [*((step, CHANCE.randint(0, 40)) for step in sorted(CHANCE.sample(range(10, 100, 10), 2))), (100, 20)]


def reached(home: Path, step: int) -> bool:
    """Whether there is a whole checkpoint of this step, or of a later one."""
    return any(step_of(mark.parent) >= step for mark in home.glob(f"store/.vlm/scratch/*/checkpoint-*/{COMPLETE}"))


@pytest.mark.parametrize("moments", [MOMENTS], ids=str)
def test_an_asset_killed_again_and_again_makes_the_same_bundle(
    moments: list[tuple[int, int]], inputs: Inputs, tmp_path: Path
) -> None:
    for step, delay_ms in moments:
        process = start(main, tmp_path, as_dict(inputs), CONFIG)
        while not reached(tmp_path, step):
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(delay_ms / 1000)
        process.kill()
        process.join()
        assert process.exitcode == -9
        assert not (tmp_path / "store" / "finetuned_model").exists()
    assert run(main, tmp_path, as_dict(inputs), CONFIG) == 0

    (whole := tmp_path / "whole").mkdir()
    assert run(fit_and_keep, inputs, CONFIG, whole) == 0
    expected, (outcome, found) = Trajectory.read(whole), result_of(tmp_path)
    assert found.summary["resumed_from_step"] == 100
    assert found.summary["train_loss"] == expected.summary["train_loss"]
    assert all(torch.equal(weight, expected.weights[name]) for name, weight in found.weights.items())

    metadata = outcome["metadata"]
    device, reason = metadata["device"].split(": ")
    assert device in ("cpu in bf16", "cpu in fp32", "cuda in bf16", "cuda in fp32")
    assert reason.startswith("the CPU ") or reason.startswith("the GPU ")
    assert metadata["curves"].startswith("![loss curves](data:image/png;base64,iVBORw0KGgo")
    assert outcome["checks"][LOSS_FELL][0]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    last = client.search_runs(["1"], "attributes.status = 'FINISHED'")[0]
    points = client.get_metric_history(last.info.run_id, "finetune/train_loss")
    assert [[point.step, point.value] for point in points] == found.summary["train_loss"]  # the whole curve
