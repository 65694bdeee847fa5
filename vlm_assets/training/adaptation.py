"""Which weights learn: all, all but the lower layers of the picture encoder, or small additions to them (LoRA)."""

from typing import Any

import torch
from transformers import BlipForConditionalGeneration

from vlm_assets.training.recipe import TrainSettings

LORA_TARGETS = ["qkv", "projection", "query", "key", "value", "dense", "fc1", "fc2"]  # every linear map of both halves


def adapt(model: BlipForConditionalGeneration, settings: TrainSettings) -> Any:
    """The model as the trainer takes it: lower layers frozen in place, LoRA around it, activations recomputed.

    LoRA: E. Hu et al., "Low-Rank Adaptation of Large Language Models", 2021; through peft.
    """
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.lora_rank:
        return _with_lora(model, settings)
    freeze_vision(model, settings.frozen_vision_layers)
    return model


def merge(model: Any) -> BlipForConditionalGeneration:
    """The plain BLIP again: LoRA's additions become part of the weights they were added to."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def plain(model: Any) -> BlipForConditionalGeneration:
    """The BLIP inside, whatever is wrapped around it; additions stay in force."""
    while hasattr(model, "module"):  # DistributedDataParallel
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def freeze_vision(model: BlipForConditionalGeneration, layers: int) -> None:
    """Stop the patch embedding and the lowest `layers` of the picture encoder from learning; -1 is all of it."""
    vision: Any = model.vision_model
    if layers == 0:
        return
    frozen = [vision] if layers < 0 else [vision.embeddings, *vision.encoder.layers[:layers]]
    for part in frozen:
        part.requires_grad_(False)


def _with_lora(model: BlipForConditionalGeneration, settings: TrainSettings) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)  # the additions start from random numbers
    present = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    frozen = settings.frozen_vision_layers
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=[name for name in LORA_TARGETS if name in present],
        exclude_modules=_frozen_pattern(model, frozen) if frozen else None,
    )
    wrapped: Any = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    return wrapped


def _frozen_pattern(model: BlipForConditionalGeneration, layers: int) -> str:
    if layers < 0:
        return r".*vision_model\..*"
    numbers = "|".join(str(number) for number in range(layers))
    return rf".*vision_model\.encoder\.layers\.({numbers})\..*"
