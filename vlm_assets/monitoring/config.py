"""Settings of the watch: what a window of traffic is, when a difference is drift, how often to retrain."""

import math
import os
from dataclasses import dataclass
from typing import Literal

import dagster as dg
from pydantic import Field, model_validator

from vlm_assets.errors import ConfigError
from vlm_assets.monitoring.drift import Threshold
from vlm_assets.monitoring.spending import alpha_of_look

COOLDOWN_VARIABLE = "VLM_RETRAIN_COOLDOWN_S"
ATTEMPTS_VARIABLE = "VLM_RETRAIN_MAX_ATTEMPTS"
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

    detector: Literal["permutation", "alibi"] = Field(
        default="permutation",
        description="permutation = squared MMD and a classifier; alibi = Alibi Detect's MMD, after `make alibi`",
    )
    alpha: float = Field(
        default=0.1, gt=0, lt=1, description="Chance of any false alarm among `windows` windows, by significance alone."
    )
    windows: int = Field(
        default=8_760, ge=1, description="Windows that share `alpha`; 8,760 = a year of hourly ones. Then anew."
    )
    spending_power: float = Field(
        default=1.0, gt=0, le=5, description="How alpha is spent over the windows: 1 evenly, above 1 more of it later."
    )
    confirm_windows: int = Field(
        default=2, ge=1, le=100, description="So many drifted windows in a row are a confirmed drift."
    )
    minimum_effect: float = Field(
        default=0.7,
        ge=0,
        description="Smallest effect that is drift, 1 = squared MMD 0.1. Noise came to 0.5, harm to 1 and more.",
    )
    min_rows: int = Field(default=50, ge=2, description="Fewer distinct pictures than this are not judged.")
    max_rows: int = Field(default=500, ge=50, le=5_000, description="Rows compared of each side; time grows squared.")
    permutations: int = Field(
        default=200_000, ge=99, le=2_000_000, description="Relabellings at most; the smallest p is 2/(1 + n)."
    )
    false_discovery_rate: float = Field(default=0.05, gt=0, lt=1, description="Of the features listed as drifted.")
    seed: int = Field(default=0, ge=0, description="Of the subsample and the relabellings.")

    @model_validator(mode="after")
    def _alpha_is_reachable(self) -> "DriftConfig":
        tests = 1 if self.detector == "alibi" else 2
        smallest = tests / (1 + self.permutations)
        least = min(self._alpha_of(1), self._alpha_of(self.windows))
        if smallest > least:
            raise ValueError(
                f"alpha is {self.alpha} over {self.windows} windows, which leaves {least:.3g} for one, but "
                f"{self.permutations} permutations give no p-value below {smallest:.3g}: drift would never be found. "
                f"Set permutations to at least {math.ceil(tests / least - 1)}, raise alpha or lower windows."
            )
        return self

    def threshold(self, look: int) -> Threshold:
        """The part of it that decides, at judged window number `look` (from 1) of one reference."""
        return Threshold(self._alpha_of(look), self.minimum_effect, self.min_rows)

    def _alpha_of(self, look: int) -> float:
        return alpha_of_look(look, self.alpha, self.windows, self.spending_power)


@dataclass(frozen=True)
class RetrainPolicy:
    """How often a retraining may be asked for, and by what.

    `cooldown_s` counts from the last retraining, of whatever cause. `max_attempts` bounds how often a retraining that
    failed or was cancelled is asked for again for the same cause. The budget is that of
    seven days: runs, and device-hours.
    """

    cooldown_s: float = 6 * 3600.0
    max_attempts: int = 3
    max_per_week: int = 7
    max_hours_per_week: float = 48.0
    min_corrections: int = 100

    @classmethod
    def from_environment(cls) -> "RetrainPolicy":
        """Read the VLM_RETRAIN_* variables; ConfigError if one is not a usable number."""
        return cls(
            cooldown_s=_number(COOLDOWN_VARIABLE, cls.cooldown_s, at_least=0),
            max_attempts=int(_number(ATTEMPTS_VARIABLE, cls.max_attempts, at_least=1)),
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
