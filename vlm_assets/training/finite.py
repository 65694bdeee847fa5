"""Stops a training at the first loss, gradient or weight that is not a number, before it is kept."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from vlm_assets.errors import TrainingError
from vlm_assets.training.checkpoints import newest_checkpoint, step_of
from vlm_assets.training.recipe import TrainSettings

WATCHED = ("loss", "gradient norm")


class FiniteWatch(TrainerCallback):
    """Remembers the first step at which a watched value was not finite, and raises TrainingError.

    On the CPU that is before the optimizer makes the step. A GPU is not made to wait: its verdict on a step is copied
    beside the work that follows and read one step later, or, before anything is evaluated or kept, at once.
    """

    def __init__(self, settings: TrainSettings, scratch: Path, device: torch.device) -> None:
        self._settings, self._scratch = settings, scratch
        self._first = torch.zeros(2, 2, dtype=torch.float64, device=device)  # (loss | gradient, step | value); 0: none
        self._copy = torch.zeros(2, 2, dtype=torch.float64, pin_memory=device.type == "cuda")
        self._copied = torch.cuda.Event() if device.type == "cuda" else None

    def note(self, what: str, value: Tensor, step: int) -> None:
        """Look at a value of this step, counted from 1, where it is."""
        row = self._first[WATCHED.index(what)]
        seen = torch.stack([torch.full_like(row[0], step), value.detach().to(row.dtype)])
        row.copy_(torch.where(torch.isfinite(value) | (row[0] > 0), row, seen))

    def check(self, *, wait: bool = False) -> None:
        """Raise if a value was not finite. Without `wait`, a GPU's last step is left for the next call."""
        if self._copied is None or wait:
            self._raise_for(self._first)
            return
        self._copied.synchronize()
        self._raise_for(self._copy)
        self._copy.copy_(self._first, non_blocking=True)
        self._copied.record()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Nothing that is not finite is evaluated or kept."""
        if control.should_evaluate or control.should_save:
            self.check(wait=True)
            name = first_bad_weight(model)
            if name:
                raise not_finite(f"The weight {name}", "not finite", state.global_step, self._settings, self._scratch)

    def _raise_for(self, first: Tensor) -> None:
        for what, (step, value) in zip(WATCHED, first.tolist(), strict=True):
            if step:
                raise not_finite(f"The {what}", str(value), int(step), self._settings, self._scratch)


def first_bad_weight(model: torch.nn.Module) -> str:
    """The name of the first weight with a value that is not finite, or nothing."""
    weights = dict(model.named_parameters())
    fine = torch.stack([torch.isfinite(weight).all() for weight in weights.values()]).tolist()
    return next((name for name, finite in zip(weights, fine, strict=True) if not finite), "")


def not_finite(what: str, value: str, step: int, settings: TrainSettings, scratch: Path) -> TrainingError:
    """What to say of a value that is not a number: where it came up, what helps, and what is left."""
    fp32 = "" if settings.precision == "fp32" else f" or set precision to fp32 (now {settings.precision})"
    said = (
        f"{what} is {value} at step {step}. Lower learning_rate (now {settings.learning_rate:g}){fp32}: that is "
        "another training, from step 0. Run again as it is, this one comes to the same step again."
    )
    good = newest_checkpoint(scratch)
    if good is None:
        return TrainingError(said)
    said += f" Its last good weights, of step {step_of(good)}, are in {good}"
    if (good / "tokenizer.json").is_file() and (good / "model.safetensors").is_file():
        said += "; to train on from them, make that directory the start of base_model"
    return TrainingError(f"{said}.")
