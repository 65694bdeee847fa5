"""Fine-tuning BLIP with Hugging Face's Trainer: needs torch, transformers, numpy and pillow, nothing of Dagster."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import BlipForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from vlm_assets.errors import TrainingError
from vlm_assets.training.batches import Collator, Example, PairDataset
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.tuning import settle
from vlm_serving.preprocessing import PreprocessingContract

COMPLETE = "complete"  # written into a checkpoint when all of it is on disk
Log = Callable[[str], object]


@dataclass
class TrainResult:
    """What training left behind: the curves, and how fast it went."""

    train_loss: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    val_loss: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    steps: int = 0
    resumed_from_step: int = 0
    seconds: float = 0.0
    pictures_per_s: float = 0.0
    device: str = ""
    precision: str = ""


def train(
    model: BlipForConditionalGeneration,
    examples: Sequence[Example],
    validation: Sequence[Example],
    contract: PreprocessingContract,
    settings: TrainSettings,
    scratch: Path,
    log: Log,
    metric: Callable[[str, float, int], object] | None = None,
) -> TrainResult:
    """Train `model` in place for `settings.steps`; resumes from the newest complete checkpoint below `scratch`.

    Raises TrainingError: nothing to learn from, loss not finite, out of memory.
    """
    if not examples:
        raise TrainingError("There is nothing to learn from: the train split is empty. Check the split's fractions.")
    device, precision, reason = resolve_device(settings.precision)
    result = TrainResult(device=device, precision=precision)
    _prepare(model, settings)
    trial = _trial_step(model, examples[: settings.batch_size], contract, device, precision)
    tuning, why = settle(model, settings.threads, settings.attention, device, scratch, trial)
    log(f"training on {device} in {precision} ({reason}); {len(examples):,} pairs an epoch")
    log(f"with {tuning} ({why})")
    trainer = _trainer(model, examples, validation, contract, settings, scratch, precision)
    trainer.add_callback(_Reporter(settings, result, log, metric))
    checkpoint = newest_checkpoint(scratch)
    if checkpoint is not None:
        result.resumed_from_step = int(checkpoint.name.rsplit("-", 1)[1])
        log(f"resuming from step {result.resumed_from_step} ({checkpoint})")
    started_s = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except torch.cuda.OutOfMemoryError as error:
        raise TrainingError(
            f"Out of GPU memory at batch_size {settings.batch_size}: {error}. "
            "Lower batch_size, use precision bf16, or a smaller model."
        ) from error
    result.seconds = time.monotonic() - started_s
    result.steps = int(trainer.state.global_step)
    done_here = result.steps - result.resumed_from_step
    result.pictures_per_s = done_here * settings.batch_size / max(result.seconds, 1e-9)
    return result


def resolve_device(precision: str) -> tuple[str, str, str]:
    """(device, precision, why) for the setting: bf16 wherever the hardware multiplies it natively."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision != "auto":
        return device, precision, "as configured"
    if device == "cuda":
        native = torch.cuda.is_bf16_supported()
        return device, "bf16" if native else "fp32", f"the GPU {'has' if native else 'lacks'} bf16"
    native = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    return device, "bf16" if native else "fp32", f"the CPU {'has' if native else 'lacks'} AMX"


def newest_checkpoint(scratch: Path) -> Path | None:
    """The newest checkpoint that was written to the end; one cut off by a kill does not count."""
    complete = (path.parent for path in scratch.glob(f"checkpoint-*/{COMPLETE}"))
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _prepare(model: BlipForConditionalGeneration, settings: TrainSettings) -> None:
    # BLIP ignores num_items_in_batch: told otherwise, Trainer would sum the loss over accumulation steps.
    untyped: Any = model
    untyped.accepts_loss_kwargs = False
    untyped.text_decoder.label_smoothing = settings.label_smoothing
    untyped.config.text_config.label_smoothing = settings.label_smoothing


def _trial_step(
    model: BlipForConditionalGeneration,
    examples: Sequence[Example],
    contract: PreprocessingContract,
    device: str,
    precision: str,
) -> Callable[[], None]:
    """A step's work without its effect: forward and backward on one batch, gradients thrown away."""
    dataset = PairDataset(examples)
    batch = {
        name: value.to(device) for name, value in Collator(contract)([dataset[i] for i in range(len(dataset))]).items()
    }
    model.to(device).train()  # pyright: ignore[reportArgumentType]

    def step() -> None:
        with torch.random.fork_rng(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        model.zero_grad()

    return step


def _trainer(
    model: BlipForConditionalGeneration,
    examples: Sequence[Example],
    validation: Sequence[Example],
    contract: PreprocessingContract,
    settings: TrainSettings,
    scratch: Path,
    precision: str,
) -> Trainer:
    evaluates = bool(validation)
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(settings.warmup_share * settings.steps),
        max_grad_norm=settings.max_grad_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=10,
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen, not averaged away
        eval_strategy="steps" if evaluates else "no",
        eval_steps=max(1, settings.steps // 5),
        prediction_loss_only=True,
        save_steps=settings.checkpoint_every_steps,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_drop_last=len(examples) >= settings.batch_size,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=settings.seed,
        data_seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )
    return _QuietTrainer(
        model=model,
        args=arguments,
        data_collator=Collator(contract),
        train_dataset=PairDataset(examples, settings.shift_px),
        eval_dataset=PairDataset(validation) if evaluates else None,
    )


class _QuietTrainer(Trainer):
    """Trainer without the dictionaries it prints at every logging step; `_Reporter` says it better."""

    def __init__(self, **kwargs: Any) -> None:
        from transformers import PrinterCallback

        super().__init__(**kwargs)
        self.remove_callback(PrinterCallback)


class _Reporter(TrainerCallback):
    """One line every few seconds, the curves, a marker in each finished checkpoint, a stop at a loss not finite."""

    def __init__(
        self, settings: TrainSettings, result: TrainResult, log: Log, metric: Callable[[str, float, int], object] | None
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

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Keep the curves; stop at once when the loss is not a number."""
        values, step = logs or {}, state.global_step
        if "loss" in values:
            self._keep("train_loss", self._result.train_loss, values["loss"], step)
            self._say(state, values["loss"])
        if "eval_loss" in values:
            self._keep("val_loss", self._result.val_loss, values["eval_loss"], step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Trainer writes checkpoints in place; this marks the ones that were written to the end."""
        (Path(args.output_dir or "") / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    def _keep(self, name: str, curve: list[tuple[int, float]], value: float, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"{name} is {value} at step {step}. Lower learning_rate (now {self._settings.learning_rate:g}) or use "
                "precision fp32; the last good checkpoint is kept and the next run resumes from it."
            )
        curve.append((step, value))
        self._metric(name, value, step)

    def _restore_curves(self, state: TrainerState) -> None:
        for entry in state.log_history:
            for key, curve in (("loss", self._result.train_loss), ("eval_loss", self._result.val_loss)):
                if key in entry:
                    curve.append((int(entry["step"]), float(entry[key])))

    def _say(self, state: TrainerState, loss: float) -> None:
        now_s = time.monotonic()
        step, total = state.global_step, self._settings.steps
        if now_s - self._said_s < self._settings.report_every_s and step < total:
            return
        self._said_s = now_s
        done = step - (self._first_step or 0)
        rate = done / max(now_s - self._started_s, 1e-9)
        self._log(
            f"training  {100 * step // total:3d}%  step {step}/{total}  loss {loss:.3f}  "
            f"{rate * self._settings.batch_size:.0f} pictures/s  ETA {(total - step) / max(rate, 1e-9):.0f} s"
        )
