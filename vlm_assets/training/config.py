"""Settings of the `training` stage: where the model starts, and how it is fine-tuned."""

from typing import Any, ClassVar, Literal, Self

import dagster as dg
from pydantic import Field, model_validator

from vlm_assets.training.recipe import TrainSettings
from vlm_serving.generation import GenerationOptions


class TrainConfig(dg.Config):
    """How to train. Budgets are in steps or epochs, never in minutes: a busy machine makes fewer steps of them."""

    default_steps: ClassVar[int] = 600  # neither steps nor epochs given

    steps: int = Field(
        default=0, ge=0, le=10_000_000, description="Optimizer steps; 0: as many as `epochs` make, or 600 without them."
    )
    epochs: float = Field(default=0.0, ge=0, le=10_000, description="Passes over the training pairs, instead of steps.")
    batch_size: int = Field(default=32, ge=1, le=4096, description="Pictures per forward pass and worker.")
    accumulation_steps: int = Field(
        default=1, ge=1, le=4096, description="Forward passes per optimizer step: memory of one, batch of all."
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=1, description="Peak of the cosine schedule, per step.")
    weight_decay: float = Field(default=0.05, ge=0, le=1, description="AdamW's, per step and unit of learning rate.")
    warmup_share: float = Field(default=0.05, ge=0, le=1, description="Share of the steps that warm up linearly.")
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6, description="Gradients are clipped to this norm (L2).")
    label_smoothing: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the target that goes to all other tokens; 0.1 as in the original BLIP.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 where the hardware multiplies it natively, else fp32. fp16 needs a GPU."
    )
    threads: int = Field(default=0, ge=0, le=256, description="CPU threads; 0 is as many as the process may use.")
    attention: Literal["auto", "fused", "stock"] = Field(
        default="auto", description="auto: on a GPU fused, on the CPU whichever a few steps show to be faster."
    )
    frozen_vision_layers: int = Field(
        default=0, ge=-1, le=48, description="Layers of the picture encoder that stay as they are, from below; -1: all."
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        le=512,
        description="Rank of the low-rank additions that alone learn (LoRA), merged at the end; 0: all weights learn.",
    )
    lora_alpha: int = Field(default=16, ge=1, le=1024, description="LoRA: the factor alpha / rank scales additions.")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="LoRA: share of their input dropped out.")
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
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of initial weights, order and augmentation.")
    checkpoint_every_steps: int = Field(
        default=200, ge=1, le=10_000_000, description="Steps that a killed run may lose, and between two validations."
    )

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if faults := self.contradictions():
            raise ValueError("\n".join(faults))
        return self

    def contradictions(self) -> list[str]:
        """Settings that are sound alone and make no sense together."""
        if self.steps and self.epochs:
            return [f"steps is {self.steps:,} and epochs is {self.epochs:g}: two budgets. Leave one of them out."]
        return []

    def settings(self) -> TrainSettings:
        """The same values without Dagster, as the trainer takes them."""
        values: dict[str, Any] = self.model_dump(include=set(TrainSettings.__dataclass_fields__))
        values["steps"] = self.steps or (0 if self.epochs else self.default_steps)
        return TrainSettings(**values)


class FinetuneConfig(TrainConfig):
    """How `finetuned_model` adapts the base to the pictures of `tokenized_shards`."""

    prompt: str = Field(
        default="", max_length=200, description='Words before every caption, masked in the loss: "a picture of".'
    )
    validation_pictures: int = Field(
        default=200,
        ge=0,
        le=1_000_000,
        description="Pictures captioned at each checkpoint; the best CIDEr is kept. 0: keep the last.",
    )
    patience: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Stop after this many checkpoints without a better validation CIDEr; 0: never.",
    )
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
    in_memory_gb: float = Field(
        default=4.0,
        ge=0,
        le=4096,
        description="GB of train and val shards that are held in memory; larger ones are read while training.",
    )
    golden_pictures: int = Field(default=4, ge=1, le=64, description="Pictures recorded as golden vectors.")

    def contradictions(self) -> list[str]:
        """The budget, and a patience that would wait for nothing."""
        faults = super().contradictions()
        if self.patience and not self.validation_pictures:
            faults.append(
                f"patience is {self.patience} but validation_pictures is 0: nothing would tell when to stop. Set "
                "validation_pictures, or patience to 0."
            )
        return faults

    def generation(self) -> GenerationOptions:
        """How the model captions when nobody says otherwise; it goes into the bundle."""
        return GenerationOptions(self.max_new_tokens, self.num_beams)


class PretrainConfig(TrainConfig):
    """How `blip-mini` is pretrained: on all the general pictures; nothing is selected, so the last weights are kept."""

    default_steps: ClassVar[int] = 1200

    steps: int = Field(
        default=0, ge=0, le=10_000_000, description="Optimizer steps; 0: as many as `epochs` make, or 1,200 without."
    )


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
    pretrain: PretrainConfig = Field(default=PretrainConfig(), description="How it is pretrained.")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}, which does not divide width {self.width}. Change one of them.")
        return self


class HubModel(dg.Config):
    """A BLIP from the Hugging Face hub at a pinned revision."""

    kind: Literal["hub"] = "hub"
    repo: str = Field(default="Salesforce/blip-image-captioning-base", description="Hub id.")
    revision: str = Field(
        default="82a37760796d32b1411fe092ab5d4e227313294b", description="Commit, tag or branch; pin a commit."
    )
    max_caption_tokens: int = Field(
        default=40,
        ge=4,
        le=512,
        description="Longest caption in tokens, start and end included; longer are cut, and counted.",
    )


class LocalModel(dg.Config):
    """A BLIP in a local directory, as `save_pretrained` writes it (safetensors)."""

    kind: Literal["directory"] = "directory"
    path: str = Field(description="The directory.")
    max_caption_tokens: int = Field(
        default=40,
        ge=4,
        le=512,
        description="Longest caption in tokens, start and end included; longer are cut, and counted.",
    )


class BaseModelConfig(dg.Config):
    """Where the model starts: one of three."""

    start: BlipMini | HubModel | LocalModel = Field(
        default=BlipMini(), discriminator="kind", description="Where the model starts, by its kind."
    )
