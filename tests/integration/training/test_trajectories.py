"""Equal trainings, however they are cut: all are held against one recorded trajectory, losses and weights.

In another order the sums of a step round otherwise: conftest.py has the tolerances. A resumed training sums in the same
order: there, bits count. Two workers are held against the same trajectory in test_ray_training.py.
"""

import random
from pathlib import Path

import pytest
import torch

from tests.integration.training.conftest import Trajectory, assert_equal
from tests.integration.training.killed_training import Killer, run
from tests.integration.training.small_inputs import SETTINGS, fit_and_keep
from vlm_assets.training.finetune import Inputs


def test_the_recorded_training_learns(trajectory: Trajectory) -> None:
    assert [step for step, _ in trajectory.summary["train_loss"]] == [1, 10, 20, 30, 40]
    assert trajectory.losses[-1] < trajectory.losses[0] - 1


def test_eight_batches_of_one_train_as_one_of_eight(inputs: Inputs, trajectory: Trajectory, tmp_path: Path) -> None:
    cut = {**SETTINGS, "batch_size": 1, "accumulation_steps": 8}
    assert run(fit_and_keep, inputs, cut, tmp_path) == 0
    assert_equal(Trajectory.read(tmp_path), trajectory)


@pytest.mark.parametrize("step", random.Random().sample(range(2, 40), 1))
def test_killed_and_resumed_is_the_recorded_training_to_the_bit(
    step: int, inputs: Inputs, trajectory: Trajectory, tmp_path: Path
) -> None:
    assert run(fit_and_keep, inputs, SETTINGS, tmp_path, Killer("step", step)) == -9
    assert run(fit_and_keep, inputs, SETTINGS, tmp_path) == 0
    found = Trajectory.read(tmp_path)
    assert found.summary["train_loss"] == trajectory.summary["train_loss"]
    assert all(torch.equal(weight, found.weights[name]) for name, weight in trajectory.weights.items())
