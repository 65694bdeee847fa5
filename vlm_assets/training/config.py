"""Settings of the `training` stage: where the model starts, and how it is fine-tuned."""

from typing import Literal

import dagster as dg
from pydantic import Field

from vlm_assets.training.recipe import PRETRAINING, TrainSettings
from vlm_serving.generation import GenerationOptions


class TrainConfig(dg.Config):
    """How to train. Budgets are in steps or epochs, never in minutes: a busy machine makes fewer steps of them."""

    steps: int = Field(default=600, ge=0, le=10_000_000, description="Optimizer steps; 0: as many as `epochs` make.")
    epochs: float = Field(default=0.0, ge=0, le=10_000, description="Passes over the training pairs, if steps is 0.")
    batch_size: int = Field(default=32, ge=1, le=4096, description="Pictures per forward pass and worker.")
    accumulation_steps: int = Field(
        default=1, ge=1, le=4096, description="Forward passes per optimizer step: memory of one, batch of all."
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="Peak of the cosine schedule.")
    weight_decay: float = Field(default=0.05, ge=0, le=1, description="AdamW's.")
    warmup_share: float = Field(default=0.05, ge=0, le=1, description="Share of the steps that warm up linearly.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="As in the original BLIP.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 where the hardware multiplies it natively, else fp32. fp16 needs a GPU."
    )
    threads: int = Field(default=0, ge=0, le=256, description="CPU threads; 0 is as many as the process may use.")
    attention: Literal["auto", "fused", "stock"] = Field(
        default="auto", description="auto: on a GPU fused, on the CPU whichever a few steps show to be faster."
    )
    prompt: str = Field(
        default="", max_length=200, description='Words before every caption, masked in the loss: "a picture of".'
    )
    frozen_vision_layers: int = Field(
        default=0, ge=-1, le=48, description="Layers of the picture encoder that stay as they are, from below; -1: all."
    )
    lora_rank: int = Field(
        default=0, ge=0, le=512, description="Train low-rank additions only (LoRA), merged at the end; 0: all weights."
    )
    lora_alpha: float = Field(default=16.0, gt=0, le=1024, description="LoRA: additions are scaled by alpha / rank.")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="LoRA: dropout on what the additions read.")
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in the backward pass: a third more time, far less memory."
    )
    group_by_length: bool = Field(default=False, description="Batches of captions of like length: fewer pads.")
    compile: bool = Field(default=False, description="torch.compile: minutes at the start, faster steps on a GPU.")
    shift_px: int = Field(default=0, ge=0, le=64, description="Augmentation: move pictures by up to this many pixels.")
    flip: bool = Field(
        default=False, description="Augmentation: mirror half of the pictures; not where captions say left or right."
    )
    jitter_share: float = Field(
        default=0.0, ge=0, lt=1, description="Augmentation: brightness and contrast change by up to this share."
    )
    seed: int = Field(default=0, ge=0, description="Seed of initial weights, order and augmentation.")
    checkpoint_every_steps: int = Field(
        default=200,
        ge=1,
        description="How much a killed run may lose, and how often validation pictures are captioned.",
    )
    validation_pictures: int = Field(
        default=200,
        ge=0,
        description="Pictures captioned at each checkpoint; the best CIDEr is kept. 0: keep the last.",
    )
    patience: int = Field(
        default=0, ge=0, description="Stop after this many checkpoints without a better validation CIDEr; 0: never."
    )

    def settings(self) -> TrainSettings:
        """The same values without Dagster, as the trainer takes them."""
        return TrainSettings(**self.model_dump(include=set(TrainSettings.__dataclass_fields__)))


class FinetuneConfig(TrainConfig):
    """How `finetuned_model` adapts the base to the pictures of `tokenized_shards`."""

    replay_share: float = Field(
        default=0.25, ge=0, lt=1, description="Share of base pictures in an epoch, against forgetting (blip-mini only)."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="Training processes, each with its GPU or share of the cores, through Ray.",
    )
    num_beams: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Beams that captions are searched with, from validation to serving; 1: greedy.",
    )
    max_new_tokens: int = Field(
        default=30, ge=1, le=512, description="Longest caption, from validation to serving, in tokens."
    )
    golden_pictures: int = Field(default=4, ge=1, le=64, description="Pictures recorded as golden vectors.")

    def generation(self) -> GenerationOptions:
        """How the model captions when nobody says otherwise; it goes into the bundle."""
        return GenerationOptions(self.max_new_tokens, self.num_beams)


class PretrainConfig(TrainConfig):
    """How `blip-mini` is pretrained."""

    steps: int = Field(default=PRETRAINING.steps, ge=1, le=10_000_000, description="Optimizer steps.")


class BlipMini(dg.Config):
    """A small BLIP with its own vocabulary, pretrained on OpenMoji's people outside their roles. Needs no network."""

    kind: Literal["blip_mini"] = "blip_mini"
    image_size_px: int = Field(default=96, ge=32, le=1024, description="The model's input is a square of this side.")
    patch_size_px: int = Field(default=16, ge=4, le=64, description="Side of a vision token.")
    width: int = Field(default=192, ge=16, le=2048, description="Width of both transformers.")
    heads: int = Field(default=3, ge=1, le=32, description="Attention heads; must divide the width.")
    vision_layers: int = Field(default=4, ge=1, le=48, description="Layers of the picture encoder.")
    text_layers: int = Field(default=2, ge=1, le=48, description="Layers of the caption decoder.")
    vocab_size: int = Field(default=4000, ge=200, le=50_000, description="Word pieces at most.")
    pretrain: PretrainConfig = PretrainConfig()


class HubModel(dg.Config):
    """A BLIP from the Hugging Face hub at a pinned revision."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(default="Salesforce/blip-image-captioning-base", description="Hub id.")
    revision: str = Field(
        default="82a37760796d32b1411fe092ab5d4e227313294b", description="Commit, tag or branch; pin a commit."
    )
    max_caption_tokens: int = Field(default=40, ge=4, le=512, description="Longer captions are cut, and counted.")


class LocalModel(dg.Config):
    """A BLIP in a local directory, as `save_pretrained` writes it (safetensors)."""

    kind: Literal["directory"] = "directory"
    path: str = Field(description="The directory.")
    max_caption_tokens: int = Field(default=40, ge=4, le=512, description="Longer captions are cut, and counted.")


class BaseModelConfig(dg.Config):
    """Where the model starts: one of three."""

    start: BlipMini | HubModel | LocalModel = Field(default=BlipMini(), discriminator="kind")
