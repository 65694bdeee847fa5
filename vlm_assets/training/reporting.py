"""What a training says while it runs: one line every few seconds, the curves, the marker of a whole checkpoint."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from vlm_assets.errors import TrainingError
from vlm_assets.training.recipe import TrainSettings

COMPLETE = "complete"  # written into a checkpoint when all of it is on disk
Curve = list[tuple[int, float]]
Metric = Callable[[str, float, int], object]
CURVES = {"loss": "train_loss", "eval_loss": "val_loss", "eval_cider": "val_cider", "eval_exact_match": "val_exact"}


@dataclass
class TrainResult:
    """What training left behind: the curves as (step, value), which step was kept, and how fast it went."""

    train_loss: Curve = field(default_factory=list[tuple[int, float]])
    val_loss: Curve = field(default_factory=list[tuple[int, float]])
    val_cider: Curve = field(default_factory=list[tuple[int, float]])
    val_exact: Curve = field(default_factory=list[tuple[int, float]])
    steps: int = 0
    kept_step: int = 0  # the checkpoint with the best validation CIDEr, or the last step
    stopped_early: bool = False
    resumed_from_step: int = 0
    seconds: float = 0.0
    pictures_per_s: float = 0.0
    device: str = ""
    precision: str = ""


class Reporter(TrainerCallback):
    """Speaks, keeps the curves, marks finished checkpoints, and stops at a loss that is not finite."""

    def __init__(
        self, settings: TrainSettings, result: TrainResult, log: Callable[[str], object], metric: Metric | None
    ) -> None:
        self._settings, self._result, self._log = settings, result, log
        self._metric = metric or (lambda name, value, step: None)
        self._first_step: int | None = None
        self._started_s = self._said_s = time.monotonic()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The clock starts with the first step, not with the import of the libraries."""
        if self._first_step is None:
            self._first_step, self._started_s = state.global_step, time.monotonic()
            self._restore_curves(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A point of the loss curve ends with each checkpoint: a resumed run averages over the same steps."""
        if state.global_step % self._settings.checkpoint_every_steps == 0:
            control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Keep the curves; stop at once when the loss is not a number."""
        values, step = logs or {}, state.global_step
        for key, name in CURVES.items():
            if key in values:
                self._keep(name, values[key], step)
        if "loss" in values:
            self._say(args, state, values["loss"])
        if "eval_cider" in values:
            self._log(
                f"validation at step {step}: CIDEr {values['eval_cider']:.3f}, "
                f"exact {100 * values['eval_exact_match']:.1f} %, loss {values['eval_loss']:.3f}"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Trainer writes checkpoints in place; this marks the ones that were written to the end, by all workers."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            (Path(args.output_dir or "") / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def _keep(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} at step {step}. Lower learning_rate (now {self._settings.learning_rate:g}) or use "
                "precision fp32; the last good checkpoint is kept and the next run resumes from it."
            )
        getattr(self._result, name).append((step, value))
        self._metric(name, value, step)

    def _restore_curves(self, state: TrainerState) -> None:
        for entry in state.log_history:
            for key, name in CURVES.items():
                if key in entry:
                    getattr(self._result, name).append((int(entry["step"]), float(entry[key])))

    def _say(self, args: TrainingArguments, state: TrainerState, loss: float) -> None:
        now_s = time.monotonic()
        step, total = state.global_step, state.max_steps
        if now_s - self._said_s < self._settings.report_every_s and step < total:
            return
        self._said_s = now_s
        rate = (step - (self._first_step or 0)) / max(now_s - self._started_s, 1e-9)
        pictures = rate * self._settings.batch_size * self._settings.accumulation_steps * args.world_size
        self._log(
            f"training  {100 * step // total:3d}%  step {step}/{total}  loss {loss:.3f}  "
            f"{pictures:.0f} pictures/s  ETA {(total - step) / max(rate, 1e-9):.0f} s"
        )
