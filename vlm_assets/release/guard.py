"""Whether a new champion is worse in service than the one before: what the gate could not see. Pure.

Both are judged by the request log, where a row is a picture that was answered: confidence, latency, captions that say
nothing. Requests that failed are not in it; those are what Prometheus alerts on.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_assets.errors import ConfigError

GUARD_VARIABLE = "VLM_GUARD_S"
ROWS_BEFORE = 500  # of the champion before, at most: its latest
NOISE = 3.0  # standard errors that a difference must exceed, besides its bound


@dataclass(frozen=True)
class GuardBounds:
    """For how long a new champion is watched, from how many pictures on, and what is too bad."""

    watch_s: float = 3600.0
    min_pictures: int = 30
    max_confidence_drop: float = 0.15
    max_unusable_rise: float = 0.05
    max_same_rise: float = 0.3
    max_latency_ratio: float = 3.0
    min_latency_rise_ms: float = 200.0

    @classmethod
    def from_environment(cls) -> "GuardBounds":
        """`watch_s` from VLM_GUARD_S; 0 switches the guard off."""
        text = os.environ.get(GUARD_VARIABLE) or str(cls.watch_s)
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise ConfigError(f"{GUARD_VARIABLE} is {text!r}; it takes seconds from 0. Correct it or unset it.")
        return cls(watch_s=seconds)


@dataclass(frozen=True)
class Served:
    """What a model answered: one entry per picture."""

    captions: Sequence[str]
    confidence: NDArray[np.float64]  # (n,) of 0..1
    latency_ms: NDArray[np.float64]  # (n,)

    def __len__(self) -> int:
        return len(self.captions)


def served_by(table: Any, version: str, since_unix_s: float = 0.0, last: int | None = None) -> Served:
    """The rows of a request log that `version` answered after a time, the `last` of them."""
    columns = {name: table[name].to_pylist() for name in ("model_version", "time_unix_s", "caption", "confidence")}
    latency = table["latency_ms"].to_pylist()
    rows = [
        row
        for row, (one, at) in enumerate(zip(columns["model_version"], columns["time_unix_s"], strict=True))
        if one == version and at > since_unix_s
    ][-(last or 0) :]
    return Served(
        [columns["caption"][row] for row in rows],
        np.array([columns["confidence"][row] for row in rows], dtype=float),
        np.array([latency[row] for row in rows], dtype=float),
    )


def degradations(before: Served, now: Served, bounds: GuardBounds) -> list[str]:
    """What is beyond its bound, in words with both figures; empty while there are too few pictures to tell."""
    if len(now) < bounds.min_pictures or len(before) < bounds.min_pictures:
        return []
    found: list[str] = []
    drop = float(before.confidence.mean() - now.confidence.mean())
    if drop > bounds.max_confidence_drop and drop > NOISE * _error(before.confidence, now.confidence):
        found.append(f"mean confidence {before.confidence.mean():.2f} -> {now.confidence.mean():.2f}")
    for name, share, bound in (
        ("unusable captions", unusable_share, bounds.max_unusable_rise),
        ("the commonest caption's share", same_share, bounds.max_same_rise),
    ):
        was, is_now = share(before.captions), share(now.captions)
        noise = NOISE * (0.25 / len(before) + 0.25 / len(now)) ** 0.5 if bound >= bounds.max_same_rise else 0.0
        if is_now - was > max(bound, noise):
            found.append(f"{name} {100 * was:.0f} % -> {100 * is_now:.0f} %")
    was_ms, now_ms = (float(np.median(one.latency_ms)) for one in (before, now))
    if now_ms > bounds.max_latency_ratio * was_ms and now_ms - was_ms > bounds.min_latency_rise_ms:
        found.append(f"median latency {was_ms:.0f} ms -> {now_ms:.0f} ms")
    return found


def unusable_share(captions: Sequence[str]) -> float:
    """Share of captions that are empty, or say a word three times in a row."""
    return sum(not caption.strip() or _loops(caption) for caption in captions) / max(1, len(captions))


def same_share(captions: Sequence[str]) -> float:
    """Share of the pictures that got the commonest caption."""
    return max(Counter(captions).values(), default=0) / max(1, len(captions))


def _loops(caption: str) -> bool:
    words = caption.split()
    return any(one == two == three for one, two, three in zip(words, words[1:], words[2:], strict=False))


def _error(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Standard error of the difference of two means."""
    return float((before.var() / len(before) + now.var() / len(now)) ** 0.5)
