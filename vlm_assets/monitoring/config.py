"""Settings of the watch: what a window of traffic is, when a difference is drift, how often to retrain."""

import os
from dataclasses import dataclass

import dagster as dg
from pydantic import Field, model_validator

from vlm_assets.errors import ConfigError
from vlm_assets.monitoring.drift import Threshold

COOLDOWN_VARIABLE = "VLM_RETRAIN_COOLDOWN_S"
ATTEMPTS_VARIABLE = "VLM_RETRAIN_MAX_ATTEMPTS"
WINDOWS_VARIABLE = "VLM_RETRAIN_CONFIRM_WINDOWS"
PER_WEEK_VARIABLE = "VLM_RETRAIN_MAX_PER_WEEK"
HOURS_PER_WEEK_VARIABLE = "VLM_RETRAIN_MAX_HOURS_PER_WEEK"
CORRECTIONS_VARIABLE = "VLM_RETRAIN_MIN_CORRECTIONS"
TICK_VARIABLE = "VLM_SENSOR_TICK_S"


class RequestLogConfig(dg.Config):
    """Which requests make up the window."""

    directory: str = Field(
        default="",
        description="Serving's request log. Empty: VLM_REQUEST_LOG, or request_log in the home.",
    )
    window_h: float = Field(default=24.0, gt=0, description="The window: requests of the last so many hours.")
    max_rows: int = Field(default=100_000, ge=1, description="At most so many requests, the latest ones.")


class DriftConfig(dg.Config):
    """How traffic is compared with the reference, and when the difference is drift."""

    alpha: float = Field(default=0.01, gt=0, lt=1, description="False-alarm rate of one window.")
    minimum_effect: float = Field(
        default=1.0,
        ge=0,
        description="Smallest effect that is drift. 1 = squared MMD 0.1, where captions of icon art began to suffer.",
    )
    min_rows: int = Field(default=50, ge=2, description="Fewer distinct pictures than this are not judged.")
    max_rows: int = Field(default=500, ge=50, le=5_000, description="Rows compared of each side; time grows squared.")
    permutations: int = Field(default=500, ge=99, le=20_000, description="Relabellings; the smallest p is 1/(1 + n).")
    false_discovery_rate: float = Field(default=0.05, gt=0, lt=1, description="Of the features listed as drifted.")
    seed: int = Field(default=0, ge=0, description="Of the subsample and the relabellings.")

    @model_validator(mode="after")
    def _alpha_is_reachable(self) -> "DriftConfig":
        smallest = 1 / (1 + self.permutations)
        if smallest > self.alpha:
            raise ValueError(
                f"alpha is {self.alpha}, but {self.permutations} permutations give no p-value below {smallest:.4g}, so "
                f"drift would never be found. Set permutations to at least {int(1 / self.alpha)} or raise alpha."
            )
        return self

    def threshold(self) -> Threshold:
        """The part of it that decides."""
        return Threshold(self.alpha, self.minimum_effect, self.min_rows)


@dataclass(frozen=True)
class RetrainPolicy:
    """How often a retraining may be asked for, and by what.

    `cooldown_s` counts from the last retraining, of whatever cause. `max_attempts` bounds how often a retraining that
    failed or was cancelled is asked for again for the same cause. `confirm_windows` windows in a row must drift, unless
    the report itself says what is confirmed. The budget is that of seven days: runs, and device-hours.
    """

    cooldown_s: float = 6 * 3600.0
    max_attempts: int = 3
    confirm_windows: int = 2
    max_per_week: int = 7
    max_hours_per_week: float = 48.0
    min_corrections: int = 100

    @classmethod
    def from_environment(cls) -> "RetrainPolicy":
        """Read the VLM_RETRAIN_* variables; ConfigError if one is not a usable number."""
        return cls(
            cooldown_s=_number(COOLDOWN_VARIABLE, cls.cooldown_s, at_least=0),
            max_attempts=int(_number(ATTEMPTS_VARIABLE, cls.max_attempts, at_least=1)),
            confirm_windows=int(_number(WINDOWS_VARIABLE, cls.confirm_windows, at_least=1)),
            max_per_week=int(_number(PER_WEEK_VARIABLE, cls.max_per_week, at_least=0)),
            max_hours_per_week=_number(HOURS_PER_WEEK_VARIABLE, cls.max_hours_per_week, at_least=0),
            min_corrections=int(_number(CORRECTIONS_VARIABLE, cls.min_corrections, at_least=1)),
        )


def tick_s(default: int) -> int:
    """Seconds between two looks of the sensors: VLM_SENSOR_TICK_S, or each sensor's own."""
    return int(_number(TICK_VARIABLE, default, at_least=1))


def _number(variable: str, default: float, at_least: float) -> float:
    text = os.environ.get(variable) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not at_least <= value < float("inf"):
        raise ConfigError(f"{variable} is {text!r}; it takes a number from {at_least:g}. Correct it or unset it.")
    return value
