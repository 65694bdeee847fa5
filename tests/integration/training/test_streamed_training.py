"""Training on shards that are not held in memory: resumed to the bit at any step, by one worker and by two."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.training.conftest import Trajectory
from tests.integration.training.killed_training import Killer, run, start
from tests.integration.training.small_inputs import SETTINGS, fit_and_keep, fit_as_worker
from tests.unit.vlm_assets.data.test_shard_reader import write
from vlm_assets.data import shards as shards_module
from vlm_assets.data.shards import shard_paths
from vlm_assets.training.batches import read_examples
from vlm_assets.training.finetune import Inputs

# 13 steps a pass, checkpoints within it, replay between the pictures, three captions each
STREAMED = {
    **SETTINGS, "in_memory_gb": 0, "steps": 32, "batch_size": 4, "accumulation_steps": 2, "checkpoint_every_steps": 6,
    "jitter_share": 0.2, "prompt": "a red", "replay_share": 0.25, "validation_pictures": 4,
}  # fmt: skip
SHARED = {**STREAMED, "accumulation_steps": 1, "workers": 2}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Shards as the data stage writes them, in small row groups; the val split plays the general pictures, too."""
    root = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards_module, "GROUP_BYTES", 5_000)
        shards = write(root)
    base = root / "base"
    (base / "general").mkdir(parents=True)
    (root / "bundle").rename(base / "bundle")
    for number, file in enumerate(shard_paths(shards, "val")):
        shutil.copy(file, base / "general" / f"train-{number:05d}.parquet")
    return Inputs(base, shards, root)


def same(found: Trajectory, expected: Trajectory) -> None:
    for name in ("train_loss", "val_loss", "val_cider", "steps", "pairs", "replay_pairs"):
        assert found.summary[name] == expected.summary[name], name
    assert all(torch.equal(weight, found.weights[name]) for name, weight in expected.weights.items())


def test_killed_in_a_pass_and_run_again_equals_never_killed(stored: Inputs, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert run(fit_and_keep, stored, STREAMED, whole) == 0
    first, second = sorted(random.Random().sample(range(7, 32), 2))
    for step in (first, second):
        assert run(fit_and_keep, stored, STREAMED, killed, Killer("step", step)) == -9
    assert run(fit_and_keep, stored, STREAMED, killed) == 0
    found, expected = Trajectory.read(killed), Trajectory.read(whole)
    same(found, expected)
    assert found.summary["resumed_from_step"] == (second - 1) // 6 * 6
    assert expected.losses[-1] < expected.losses[0] - 1
    assert expected.summary["pairs"] == len(read_examples(shard_paths(stored.shards, "train")))


def together(stored: Inputs, settings: dict[str, Any], folder: Path, *callbacks: Any) -> list[int]:
    """Exit codes of two workers."""
    meeting = folder / f"meeting-{len(list(folder.glob('meeting-*')))}"
    meeting.touch()
    workers = [start(fit_as_worker, rank, 2, meeting, stored, settings, folder, *callbacks) for rank in range(2)]
    for worker in workers:
        worker.join()
    return [worker.exitcode or 0 for worker in workers]


def test_two_workers_share_the_pictures_and_resume_together(stored: Inputs, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert together(stored, SHARED, whole) == [0, 0]
    first, second = (Trajectory.read(whole / str(rank)) for rank in range(2))
    assert all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())
    assert first.losses[-1] < first.losses[0] - 1
    assert together(stored, SHARED, killed, Killer("step", 15)) == [-9, -9]
    assert together(stored, SHARED, killed) == [0, 0]
    found = Trajectory.read(killed / "0")
    same(found, first)
    assert found.summary["resumed_from_step"] == 12
