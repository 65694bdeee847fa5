"""Settings of a training, free of torch and of Dagster, and the ones that the embedded default uses."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Budgets are in steps, never in minutes: the same minutes are fewer steps on a busy machine."""

    steps: int
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_share: float = 0.05
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.1
    precision: str = "auto"  # auto | fp32 | bf16
    threads: int = 0  # 0: as many as the process may use
    attention: str = "auto"  # auto | fused | stock
    shift_px: int = 0
    seed: int = 0
    checkpoint_every_steps: int = 200
    report_every_s: float = 5.0


PRETRAINING = TrainSettings(steps=1200)
