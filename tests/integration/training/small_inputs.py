"""Trainings of tiny inputs, each in a process of its own."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import Inputs, fit

SETTINGS: dict[str, Any] = {
    "steps": 40, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32", "threads": 1, "attention": "fused",
    "checkpoint_every_steps": 10, "golden_pictures": 1, "label_smoothing": 0.0, "shift_px": 2,
}  # fmt: skip


def fit_and_keep(inputs: Inputs, settings: dict[str, Any], folder: Path, *callbacks: Any) -> None:
    """One training without Ray: `summary.json` and `weights.pt` in `folder`."""
    torch.set_num_threads(1)
    model, summary = fit(inputs, FinetuneConfig(**settings), folder / "scratch", lambda _: None, None, callbacks)
    (folder / "summary.json").write_text(json.dumps(summary))
    torch.save(model.state_dict(), folder / "weights.pt")


def fit_as_worker(
    rank: int, world: int, meeting: Path, inputs: Inputs, settings: dict[str, Any], folder: Path, *callbacks: Any
) -> None:
    """The same as one of several processes, which find each other by a file; each leaves its files in `folder`/rank."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    own = folder / str(rank)
    for made in (own, folder / "scratch"):
        made.mkdir(exist_ok=True)
    (own / "scratch").unlink(missing_ok=True)
    (own / "scratch").symlink_to(folder / "scratch")
    fit_and_keep(inputs, settings, own, *callbacks)


def as_dict(inputs: Inputs) -> dict[str, str]:
    """The directories by the names that Inputs has for them."""
    return {name: str(path) for name, path in asdict(inputs).items()}
