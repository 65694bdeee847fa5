"""A small training that kills itself: `python -m tests.integration.training.killed_training BUNDLE SCRATCH OUT WHEN`.

WHEN: never | step N | epoch N (after its end) | write N (while the checkpoint of step N is being written).
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.unit.vlm_assets.training.test_fine_tuning import validator
from tests.unit.vlm_assets.training.test_trainer import FAST, examples
from vlm_assets.training.reporting import COMPLETE
from vlm_assets.training.trainer import train
from vlm_serving.bundle import open_bundle
from vlm_serving.model import load_model

SETTINGS = replace(
    FAST, steps=30, batch_size=2, accumulation_steps=2, checkpoint_every_steps=6, shift_px=3, jitter_share=0.2,
    group_by_length=True, learning_rate=2e-3,
)  # fmt: skip


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(TrainerCallback):
    """Dies at a step or after an epoch."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind, self.number = kind, number

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.kind == "step" and state.global_step == self.number:
            die()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.kind == "epoch" and round(state.epoch) == self.number:
            die()


def die_while_writing(scratch: Path, step: int) -> None:
    """As soon as something of the checkpoint is on disk, and before it is marked complete."""
    folder = scratch / f"checkpoint-{step}"
    while not (folder.is_dir() and any(folder.iterdir())):
        time.sleep(0.0005)
    if not (folder / COMPLETE).exists():
        die()


def main() -> None:
    bundle, scratch, out, when = open_bundle(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    kind, number = when.split() if " " in when else (when, "0")
    if kind == "write":
        threading.Thread(target=die_while_writing, args=(scratch, int(number)), daemon=True).start()
    model, pairs = load_model(bundle.path), examples(bundle.path)
    result = train(
        model, pairs, pairs, bundle.contract, SETTINGS, scratch, lambda _: None, validator=validator(bundle),
        callbacks=[Killer(kind, int(number))],
    )  # fmt: skip
    torch.save(model.state_dict(), out.with_suffix(".pt"))
    curves = {name: getattr(result, name) for name in ("train_loss", "val_loss", "val_cider")}
    out.write_text(json.dumps({"resumed": result.resumed_from_step, "kept": result.kept_step, "curves": curves}))


if __name__ == "__main__":
    main()
