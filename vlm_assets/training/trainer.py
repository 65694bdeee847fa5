"""Fine-tuning BLIP with Hugging Face's Trainer: needs torch, transformers, numpy and pillow, nothing of Dagster."""

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import BlipForConditionalGeneration, EarlyStoppingCallback, TrainerCallback, TrainingArguments

from vlm_assets.errors import TrainingError
from vlm_assets.training.adaptation import adapt, merge
from vlm_assets.training.augmentation import Augmentation
from vlm_assets.training.batches import Collator, Example, Normaliser, PairDataset, Pairs, PairsInMemory
from vlm_assets.training.bundling import write_processors
from vlm_assets.training.caption_trainer import CaptionTrainer, Validator
from vlm_assets.training.checkpoints import Checkpoints, agreed_checkpoint, sole_writer, step_of
from vlm_assets.training.compiling import compile_layers, uncompile_layers
from vlm_assets.training.finite import FiniteWatch
from vlm_assets.training.preflight import check_training
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.reporting import Metric, Reporter, TrainResult
from vlm_assets.training.tuning import settle
from vlm_serving.hardware import resolve_device
from vlm_serving.preprocessing import PreprocessingContract

Log = Callable[[str], object]
MOST_LOADERS = 12
ASKED = re.compile(r"[Tt]ried to allocate ([\d.,]+ ?\w+)")


def train(
    model: BlipForConditionalGeneration,
    examples: Sequence[Example] | Pairs,
    validation: Sequence[Example],
    contract: PreprocessingContract,
    settings: TrainSettings,
    scratch: Path,
    log: Log,
    metric: Metric | None = None,
    *,
    validator: Validator | None = None,
    prompt_tokens: int = 0,
    tokenizer: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult:
    """Train `model` in place; resumes from the newest complete checkpoint below `scratch`.

    `examples`: in memory, or where they are streamed from (`streaming.ShardPairs`).
    `validation` gives the loss curve; `validator` captions and scores (cider, exact_match) at every checkpoint, and
    the best weights are the ones left in `model`: by CIDEr, or by validation loss where the validator has a
    `cider_note` that CIDEr cannot tell. `prompt_tokens`: how many ids after BOS are given, not learnt. `tokenizer`:
    saved with each checkpoint, so that another training may start from it. Raises TrainingError: faults of data and
    settings (all at once), a value that is not finite, out of memory.
    """
    pairs = PairsInMemory(examples) if isinstance(examples, Sequence) else examples
    check_training(model, pairs, validation, settings, prompt_tokens)
    device, precision, reason = resolve_device(settings.precision)
    result = TrainResult(device=device, precision=precision, precision_reason=reason)
    with sole_writer(scratch, log), _memory_explained(settings):
        _smooth_labels(model, settings.label_smoothing)
        trial = _trial_step(model, pairs.head(settings.batch_size), contract, device, precision)
        tuning, why = settle(model, settings.threads, settings.attention, device, scratch, trial)
        log(f"training on {device} in {precision} ({reason}); {pairs.extent.pairs:,} pairs an epoch")
        if pairs.streamed:
            log("pairs are read from the shards while they are trained on, one caption of each picture in a pass")
        log(f"with {tuning} ({why})")
        adapted = adapt(model, settings)
        if settings.compile:
            compile_layers(model)
        trainer = _trainer(adapted, pairs, validation, contract, settings, scratch, precision, validator, prompt_tokens)
        trainer.watch = FiniteWatch(settings, scratch, trainer.args.device)
        reporter = Reporter(settings, result, log, metric, scratch)
        for callback in (trainer.watch, reporter, _checkpoints(tokenizer, contract), *callbacks):
            trainer.add_callback(callback)
        if trainer.args.metric_for_best_model == "loss":
            log(f"the best checkpoint is told by validation loss: {_cider_note(validator)}")
        _run(trainer, settings, scratch, result, log)
        uncompile_layers(model)
        merge(adapted)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    return result


def _run(trainer: CaptionTrainer, settings: TrainSettings, scratch: Path, result: TrainResult, log: Log) -> None:
    checkpoint = agreed_checkpoint(scratch)
    if checkpoint is not None:
        result.resumed_from_step = step_of(checkpoint)
        log(f"resuming from step {result.resumed_from_step} ({checkpoint})")
    started_s = time.monotonic()
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    state = trainer.state
    result.seconds = time.monotonic() - started_s
    result.steps = int(state.global_step)
    result.stopped_early = result.steps < state.max_steps
    best = state.best_global_step if trainer.args.load_best_model_at_end else None
    result.kept_step = int(best or result.steps)
    pictures = (result.steps - result.resumed_from_step) * settings.batch_size * settings.accumulation_steps
    result.pictures_per_s = pictures * trainer.args.world_size / max(result.seconds, 1e-9)
    if result.kept_step != result.steps or result.stopped_early:
        early = f", stopped after {settings.patience} checkpoints without a better one" if result.stopped_early else ""
        judged_by = {"cider": "CIDEr"}.get(str(trainer.args.metric_for_best_model), "loss")
        log(f"kept the weights of step {result.kept_step} of {result.steps}: best validation {judged_by}{early}")


def _checkpoints(tokenizer: Any, contract: PreprocessingContract) -> Checkpoints:
    """With a tokenizer each is a model directory, from which another training may start."""
    return Checkpoints(lambda path: write_processors(path, tokenizer, contract)) if tokenizer else Checkpoints()


@contextmanager
def _memory_explained(settings: TrainSettings) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(out_of_memory(str(error), settings)) from error


def out_of_memory(message: str, settings: TrainSettings) -> str:
    """What to say when the GPU's memory is exhausted: what was asked, and the settings that help."""
    asked = ASKED.search(message)
    return (
        f"Out of GPU memory at batch_size {settings.batch_size}: {asked[1] if asked else 'more'} asked beyond what is "
        f"free. Lower batch_size and raise accumulation_steps (now {settings.accumulation_steps}), set "
        f"gradient_checkpointing (now {settings.gradient_checkpointing}), or train less: lora_rank (now "
        f"{settings.lora_rank}) or frozen_vision_layers (now {settings.frozen_vision_layers})."
    )


def _smooth_labels(model: BlipForConditionalGeneration, share: float) -> None:
    untyped: Any = model
    untyped.text_decoder.label_smoothing = share
    untyped.config.text_config.label_smoothing = share


def _trial_step(
    model: BlipForConditionalGeneration,
    examples: Sequence[Example],
    contract: PreprocessingContract,
    device: str,
    precision: str,
) -> Callable[[], None]:
    """A step's work without its effect: forward and backward on one batch, gradients thrown away."""
    dataset = PairDataset(examples)
    batch = Normaliser(contract)(Collator(contract)([dataset[i] for i in range(len(dataset))]), device)
    model.to(device).train()  # pyright: ignore[reportArgumentType]

    def step() -> None:
        with torch.random.fork_rng(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        model.zero_grad()

    return step


def _trainer(
    model: Any,
    pairs: Pairs,
    validation: Sequence[Example],
    contract: PreprocessingContract,
    settings: TrainSettings,
    scratch: Path,
    precision: str,
    validator: Validator | None,
    prompt_tokens: int,
) -> CaptionTrainer:
    evaluates, extent = bool(validation), pairs.extent
    total_steps = settings.total_steps(extent.pairs, _world_size())
    loaders = 0 if pairs.streamed else loader_count(len(os.sched_getaffinity(0)), _world_size())
    best_by = ("loss" if _cider_note(validator) else "cider") if evaluates and validator else None
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=total_steps if pairs.streamed else settings.steps or -1,  # a pass over a stream is not an epoch
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation_steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(settings.warmup_share * total_steps),
        max_grad_norm=settings.max_grad_norm,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would wait for the device at each step; FiniteWatch does not
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.checkpoint_every_steps,
        prediction_loss_only=True,
        save_steps=settings.checkpoint_every_steps,
        load_best_model_at_end=best_by is not None,
        metric_for_best_model=best_by,
        restore_callback_states_from_checkpoint=True,
        remove_unused_columns=False,
        dataloader_drop_last=extent.pairs >= settings.batch_size * _world_size(),  # full batches, where there is one
        dataloader_pin_memory=torch.cuda.is_available(),
        accelerator_config={"non_blocking": True},  # pinned batches travel while the GPU works
        dataloader_num_workers=loaders,
        dataloader_persistent_workers=loaders > 0,
        ddp_find_unused_parameters=False,
        seed=settings.seed,
        data_seed=settings.seed,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )
    augmentation = Augmentation(settings.shift_px, settings.flip, settings.jitter_share)
    trainer = CaptionTrainer(
        model=model,
        args=arguments,
        data_collator=Collator(contract, prompt_tokens),
        train_dataset=pairs.dataset(augmentation, settings.seed),
        eval_dataset=PairDataset(validation) if evaluates else None,
    )
    trainer.validator, trainer.normalise = validator, Normaliser(contract)
    trainer.group_by_length, trainer.streamed = settings.group_by_length, pairs.streamed
    if best_by and settings.patience:
        trainer.add_callback(EarlyStoppingCallback(settings.patience))
    return trainer


def loader_count(cores: int, workers: int) -> int:
    """Processes that decode pictures for a GPU, which would wait for one; a CPU that trains has no core to spare."""
    return max(1, min(MOST_LOADERS, cores // workers - 1)) if torch.cuda.is_available() else 0


def _cider_note(validator: Validator | None) -> str:
    return str(getattr(validator, "cider_note", ""))


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
