"""All that is wrong with a training before it starts, said at once."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BlipForConditionalGeneration

from vlm_assets.errors import TrainingError
from vlm_assets.training.batches import Example, Pairs
from vlm_assets.training.recipe import TrainSettings


def check_training(
    model: BlipForConditionalGeneration,
    pairs: Pairs,
    validation: Sequence[Example],
    settings: TrainSettings,
    prompt_tokens: int,
    found: Sequence[str] = (),
) -> None:
    """Raise TrainingError with every fault of data, model and settings that can be known before the first step.

    `found`: faults that were seen before.
    """
    faults = [*found, *_data_faults(model, pairs, prompt_tokens), *_setting_faults(model, settings)]
    if not validation and settings.validation_pictures:
        faults.append(
            f"The val split is empty, but validation_pictures is {settings.validation_pictures} and patience "
            f"{settings.patience}: no checkpoint could be told from another. Give the split a val fraction, or set "
            "both to 0: then the last checkpoint is kept."
        )
    if pairs.streamed and settings.group_by_length:
        faults.append(
            "group_by_length sorts pairs that are in memory, but these shards are larger than in_memory_gb and are "
            "read while they are trained on. Set group_by_length to false, or raise in_memory_gb."
        )
    if len(faults) == 1:
        raise TrainingError(faults[0])
    if faults:
        listed = "\n".join(f"  {number}. {fault}" for number, fault in enumerate(faults, start=1))
        raise TrainingError(f"{len(faults)} things must change before training can start:\n{listed}")


def _data_faults(model: BlipForConditionalGeneration, pairs: Pairs, prompt_tokens: int) -> list[str]:
    extent = pairs.extent
    if not extent.pairs:
        return ["There is nothing to learn from: the train split is empty. Check the split's fractions."]
    text: Any = model.config.text_config
    faults: list[str] = []
    if extent.highest_token >= text.vocab_size:
        faults.append(
            f"A caption has token {extent.highest_token}, the model's vocabulary ends at {text.vocab_size - 1}: the "
            "shards were made with another tokenizer. Materialize tokenized_shards again with this base model."
        )
    if extent.most_tokens > text.max_position_embeddings:
        faults.append(
            f"A caption has {extent.most_tokens} tokens, prompt included ({prompt_tokens}); the model has places for "
            f"{text.max_position_embeddings}. Shorten the prompt, or lower max_caption_tokens of the base model."
        )
    return faults


def _setting_faults(model: BlipForConditionalGeneration, settings: TrainSettings) -> list[str]:
    faults: list[str] = []
    if (settings.steps > 0) == (settings.epochs > 0):
        faults.append(
            f"steps is {settings.steps} and epochs is {settings.epochs:g}: set one of them, and the other to 0."
        )
    if settings.precision == "fp16" and not torch.cuda.is_available():
        faults.append("precision is fp16, which needs a GPU; none is here. Use auto, bf16 or fp32.")
    layers = len(model.vision_model.encoder.layers)
    if settings.frozen_vision_layers > layers:
        faults.append(
            f"frozen_vision_layers is {settings.frozen_vision_layers}, the picture encoder has {layers} layers. "
            f"Use 0 to {layers}, or -1 for all."
        )
    if settings.patience and not settings.validation_pictures:
        faults.append(
            f"patience is {settings.patience} but validation_pictures is 0: nothing would tell when to stop. "
            "Set validation_pictures, or patience to 0."
        )
    return faults
