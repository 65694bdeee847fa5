"""SIGKILL at any moment, then the same command again: the same losses and the same weights, bit for bit."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.training.killed_training import killed_training, run
from tests.tiny import tiny_bundle

# others in each run of the tests; the test's name tells which
RANDOM_STEPS = sorted(random.Random().sample(range(2, 31), 4))
EVERY = 5  # steps between checkpoints


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return json.loads((folder / "out.json").read_text()), torch.load(folder / "weights.pt")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def uninterrupted(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {plan: tmp_path_factory.mktemp(plan) for plan in ("whole", "early")}
    for plan, folder in folders.items():
        assert run(killed_training, bundle, folder, plan, "never") == 0
    return folders


def same(expected: Path, found: Path) -> int:
    """Asserts that both trainings came to the very same end; returns the step that the last run resumed from."""
    (whole, weights), (again, others) = outcome(expected), outcome(found)
    assert again["curves"] == whole["curves"]
    assert again["metrics"] == whole["curves"]  # told again from the start: the tracker's run is a new one
    assert again["ends"] == whole["ends"]
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    return again["resumed"]


CASES = [
    ("whole", "step 5", 0),  # all of the step is done but its checkpoint
    ("whole", "epoch 8", 15),
    ("whole", "write 15", 10),
    ("whole", "end", 31),
    ("early", "remove", 15),  # 5 is the best, 10 goes when 15 is whole
    ("early", "end", 20),
]


@pytest.mark.parametrize(("plan", "when", "newest"), CASES, ids=[f"{plan} {when}" for plan, when, _ in CASES])
def test_killed_and_run_again_equals_never_killed(
    plan: str, when: str, newest: int, bundle: Path, uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    assert run(killed_training, bundle, tmp_path, plan, when) == -9
    assert run(killed_training, bundle, tmp_path, plan, "never") == 0
    assert same(uninterrupted[plan], tmp_path) == newest


@pytest.mark.parametrize("steps", [RANDOM_STEPS], ids=str)
def test_killed_again_and_again_at_random_steps_equals_never_killed(
    steps: list[int], bundle: Path, uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    for step in steps:
        assert run(killed_training, bundle, tmp_path, "whole", f"step {step}") == -9
    assert run(killed_training, bundle, tmp_path, "whole", "never") == 0
    assert same(uninterrupted["whole"], tmp_path) == (steps[-1] - 1) // EVERY * EVERY


def test_what_ended_makes_no_further_step(uninterrupted: dict[str, Path]) -> None:
    ends = {plan: outcome(folder)[0]["ends"] for plan, folder in uninterrupted.items()}
    assert ends["whole"]["steps"] == 31
    assert ends["early"] == {"steps": 20, "kept": 5, "early": True}
    for folder in uninterrupted.values():
        assert len(list(folder.glob("scratch/checkpoint-*"))) == len({"best", "last"})
