"""What the tests of training share: small inputs, and one recorded training that others must equal."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.integration.training.killed_training import run
from tests.integration.training.small_inputs import SETTINGS, fit_and_keep
from tests.unit.vlm_assets.training.inputs import tiny_inputs
from vlm_assets.training.finetune import Inputs

# Another order of the sums rounds otherwise, and AdamW carries that into the weights (docs/experiments.md)
LOSS_RTOL = 1e-5
WEIGHT_ATOL = 2e-5  # a hundredth of what one step may move a weight


@dataclass(frozen=True)
class Trajectory:
    """A training as it went: loss by step, and the weights at its end."""

    summary: dict[str, Any]
    weights: dict[str, torch.Tensor]

    @property
    def losses(self) -> list[float]:
        """Of the training curve."""
        return [loss for _, loss in self.summary["train_loss"]]

    @classmethod
    def read(cls, folder: Path) -> "Trajectory":
        """What `fit_and_keep` left."""
        return cls(json.loads((folder / "summary.json").read_text()), torch.load(folder / "weights.pt"))


def sealed(out: Path) -> Trajectory:
    """The training that an artifact's directory holds."""
    return Trajectory(json.loads((out / "training.json").read_text()), load_file(out / "bundle" / "model.safetensors"))


def result_of(home: Path) -> tuple[dict[str, Any], Trajectory]:
    """What `asset_run` told of itself, and the training in its store."""
    (made,) = (home / "store" / "finetuned_model").iterdir()
    return json.loads((home / "outcome.json").read_text()), sealed(made)


def assert_equal(found: Trajectory, expected: Trajectory) -> None:
    """The same training but for rounding."""
    np.testing.assert_allclose(found.losses, expected.losses, rtol=LOSS_RTOL)
    assert [step for step, _ in found.summary["train_loss"]] == [step for step, _ in expected.summary["train_loss"]]
    for name, weight in found.weights.items():  # a file has tied ones once
        torch.testing.assert_close(weight, expected.weights[name], rtol=0, atol=WEIGHT_ATOL)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A tiny base bundle, and shards of 24 training and 8 validation pictures for it."""
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def trajectory(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """One process, batches of 8, never interrupted."""
    folder = tmp_path_factory.mktemp("trajectory")
    assert run(fit_and_keep, inputs, SETTINGS, folder) == 0
    return Trajectory.read(folder)
