"""What a training says while it runs: one line every few seconds, and the curves."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from vlm_assets.training.finite import not_finite
from vlm_assets.training.recipe import TrainSettings

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
    kept_step: int = 0  # of the best checkpoint, or the last one
    stopped_early: bool = False
    resumed_from_step: int = 0
    seconds: float = 0.0
    pictures_per_s: float = 0.0
    device: str = ""
    precision: str = ""
    precision_reason: str = ""


class Reporter(TrainerCallback):
    """Speaks and keeps the curves."""

    def __init__(
        self,
        settings: TrainSettings,
        result: TrainResult,
        log: Callable[[str], object],
        metric: Metric | None,
        scratch: Path,
    ) -> None:
        self._settings, self._result, self._log, self._scratch = settings, result, log, scratch
        self._metric = metric or (lambda name, value, step: None)
        self._first_step: int | None = None
        self._started_s = self._said_s = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A resumed run has the whole curves; what it reports to begins anew and gets them too."""
        for entry in state.log_history:
            self._keep_all(entry, int(entry["step"]))

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The clock starts with the first step, not with the import of the libraries."""
        if self._first_step is None:
            self._first_step, self._started_s = state.global_step, time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A point of the loss curve ends with each checkpoint: a resumed run averages over the same steps."""
        if control.should_save:
            control.should_log = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Keep the curves, and say where we are."""
        values, step = logs or {}, state.global_step
        self._keep_all(values, step)
        if "loss" in values:
            self._say(args, state, values["loss"])
        if "eval_exact_match" in values:
            cider = f"{values['eval_cider']:.3f}" if "eval_cider" in values else "n/a"
            self._log(
                f"validation at step {step}: CIDEr {cider}, "
                f"exact {100 * values['eval_exact_match']:.1f} %, loss {values['eval_loss']:.3f}"
            )

    def _keep_all(self, values: Mapping[str, float], step: int) -> None:
        for key, name in CURVES.items():
            if key in values:
                self._keep(name, float(values[key]), step)

    def _keep(self, name: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise not_finite(name, str(value), step, self._settings, self._scratch)
        getattr(self._result, name).append((step, value))
        self._metric(name, value, step)

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
