"""Small trainings that kill themselves, each in a process of its own."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.unit.vlm_assets.training.test_fine_tuning import validator
from tests.unit.vlm_assets.training.test_trainer import FAST, examples
from vlm_assets.training.checkpoints import COMPLETE
from vlm_assets.training.trainer import train
from vlm_serving.bundle import open_bundle
from vlm_serving.model import load_model

# 2 steps an epoch: every other checkpoint, and the end, fall into the middle of one
WHOLE = replace(
    FAST, steps=31, batch_size=2, accumulation_steps=2, checkpoint_every_steps=5, shift_px=3, jitter_share=0.2,
    group_by_length=True, learning_rate=2e-3, validation_pictures=8,
)  # fmt: skip
# it learns so slowly that no checkpoint is better than the first: 5 stays, 20 is the last
EARLY = replace(WHOLE, steps=60, learning_rate=1e-9, patience=3)
SETTINGS = {"whole": WHOLE, "early": EARLY}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(TrainerCallback):
    """Dies at a step, after an epoch, or when the last checkpoint is written."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.number = kind, number

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.kind == "step" and state.global_step == self.number:
            die()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.kind == "epoch" and round(state.epoch) == self.number:
            die()

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.kind == "end" and control.should_training_stop:
            die()


def die_while_writing(scratch: Path, step: int) -> None:
    """As soon as something of the checkpoint is on disk, and before it is marked complete."""
    folder = scratch / f"checkpoint-{step}"
    while not (folder.is_dir() and any(folder.iterdir())):
        time.sleep(0.0005)
    if not (folder / COMPLETE).exists():
        die()


def die_while_removing() -> None:
    """When half of a checkpoint that is no longer needed is gone."""

    def half(path: Path, **_: Any) -> None:
        for name in ("model.safetensors", "optimizer.pt"):
            (path / name).unlink()
        die()

    shutil.rmtree = half


def killed_training(bundle_path: Path, folder: Path, plan: str, when: str) -> None:
    """`plan`: whole | early. `when`: never | step N | epoch N | write N | remove | end."""
    torch.set_num_threads(1)
    bundle, scratch = open_bundle(bundle_path), folder / "scratch"
    kind, _, number = when.partition(" ")
    if kind == "write":
        threading.Thread(target=die_while_writing, args=(scratch, int(number)), daemon=True).start()
    if kind == "remove":
        die_while_removing()
    model, pairs, points = load_model(bundle.path), examples(bundle.path), list[tuple[str, float, int]]()
    result = train(
        model, pairs, pairs, bundle.contract, SETTINGS[plan], scratch, lambda _: None,
        lambda *point: points.append(point), validator=validator(bundle), callbacks=[Killer(kind, int(number or 0))],
    )  # fmt: skip
    torch.save(model.state_dict(), folder / "weights.pt")
    curves = {name: getattr(result, name) for name in ("train_loss", "val_loss", "val_cider", "val_exact")}
    said = {name: [[step, value] for other, value, step in points if other == name] for name in curves}
    ends = {"steps": result.steps, "kept": result.kept_step, "early": result.stopped_early}
    out = {"resumed": result.resumed_from_step, "ends": ends, "curves": curves, "metrics": said}
    (folder / "out.json").write_text(json.dumps(out))


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process that is forked off one which has loaded the libraries already."""
    forkserver = get_context("forkserver")
    forkserver.set_forkserver_preload([__name__, "tests.integration.training.asset_run"])
    process = forkserver.Process(target=target, args=arguments)
    process.start()
    return process


def run(target: Callable[..., None], *arguments: Any) -> int:
    """The exit code of such a process."""
    process = start(target, *arguments)
    process.join()
    assert process.exitcode is not None
    return process.exitcode
