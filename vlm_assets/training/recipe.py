"""Settings of a training, free of torch and of Dagster."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Budgets are in steps or epochs, never in minutes: a busy machine makes fewer steps of them."""

    steps: int  # 0: as many as `epochs` make
    epochs: float = 0.0
    batch_size: int = 32  # pictures per forward pass and worker
    accumulation_steps: int = 1  # forward passes per optimizer step; the loss is the mean over all their tokens
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.05
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.1
    precision: str = "auto"  # auto | fp32 | bf16 | fp16
    threads: int = 0  # 0: as many as the process may use
    attention: str = "auto"  # auto | fused | stock
    prompt: str = ""  # precedes every caption and is masked in the loss
    frozen_vision_layers: int = 0  # from the picture up; -1 is all
    lora_rank: int = 0  # 0: all weights are trained
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    gradient_checkpointing: bool = False
    group_by_length: bool = False
    compile: bool = False
    shift_px: int = 0
    flip: bool = False
    jitter_share: float = 0.0
    seed: int = 0
    checkpoint_every_steps: int = 200
    validation_pictures: int = 200
    patience: int = 0  # validations without a better CIDEr before training stops; 0 never stops
    report_every_s: float = 5.0

    def total_steps(self, pairs: int, workers: int = 1) -> int:
        """Optimizer steps of the whole training on `pairs` examples."""
        if self.steps:
            return self.steps
        return max(1, math.ceil(self.epochs * pairs / (self.batch_size * self.accumulation_steps * workers)))
