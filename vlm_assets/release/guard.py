"""Whether a new champion is worse in service than the one before: what the gate could not see. Pure.

Both are judged by what serving wrote down: the pictures that were answered, in the request log (confidence, latency,
captions that say nothing), and the requests that failed because of the model, in the log of failures beside it.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlm_assets.errors import ConfigError

GUARD_VARIABLE = "VLM_GUARD_S"
ROWS_BEFORE = 500  # of the champion before, at most: its latest
NOISE = 3.0  # standard errors that a difference must exceed, besides its bound
CHANCE = 0.001  # if both failed alike, so many failures must be rarer: low, for an hour is looked at every 30 s


@dataclass(frozen=True)
class GuardBounds:
    """For how long a new champion is watched, from how many pictures on, and what is too bad."""

    watch_s: float = 3600.0
    min_pictures: int = 30
    max_failure_rise: float = 0.02
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
    """What a model answered, one entry per picture, and what it failed on; a request is answered whole or not."""

    captions: Sequence[str]
    confidence: NDArray[np.float64]  # (n,) of 0..1
    latency_ms: NDArray[np.float64]  # (n,)
    answered_requests: int
    failed_requests: int = 0
    failed_pictures: int = 0

    def __len__(self) -> int:
        """Pictures asked for."""
        return len(self.captions) + self.failed_pictures

    @property
    def requests(self) -> int:
        """Requests, answered or not."""
        return self.answered_requests + self.failed_requests

    @property
    def failed_share(self) -> float:
        """Share of the requests that failed."""
        return self.failed_requests / max(1, self.requests)


def served_by(log: Any, failures: Any, version: str, since_unix_s: float = 0.0, last: int | None = None) -> Served:
    """What `version` did after a time, by both logs (pyarrow.Table): the `last` pictures answered, failures since."""
    rows = _rows_of(log, version, since_unix_s)
    if last is not None and rows.num_rows > last:
        rows = rows.slice(rows.num_rows - last)
        since_unix_s = rows["time_unix_s"][0].as_py()
    failed = _rows_of(failures, version, since_unix_s)
    return Served(
        rows["caption"].to_pylist(),
        np.array(rows["confidence"].to_pylist(), dtype=float),
        np.array(rows["latency_ms"].to_pylist(), dtype=float),
        sum(map(_is_first, rows["request_id"].to_pylist())),
        failed.num_rows,
        sum(failed["pictures"].to_pylist()),
    )


def degradations(before: Served, now: Served, bounds: GuardBounds) -> list[str]:
    """What is beyond its bound, in words with both figures; empty while there are too few pictures to tell."""
    if min(len(before), len(now)) < bounds.min_pictures:
        return []
    found = more_failures(before, now, bounds)
    if min(len(before.captions), len(now.captions)) >= bounds.min_pictures:
        found += _worse_answers(before, now, bounds)
    return found


def more_failures(before: Served, now: Served, bounds: GuardBounds) -> list[str]:
    """The part of `degradations` that is about failures: by request, for pictures of one fail together."""
    was, is_now = before.failed_share, now.failed_share
    if is_now - was <= bounds.max_failure_rise or chance_of_failures(before, now) >= CHANCE:
        return []
    return [f"failed requests {100 * was:.0f} % -> {100 * is_now:.0f} %"]


def chance_of_failures(before: Served, now: Served) -> float:
    """How likely so many of all the failed requests, or more, would be `now`'s if both failed alike (Fisher, exact)."""
    from scipy.stats import hypergeom  # a second that the code location need not spend

    every, failed = before.requests + now.requests, before.failed_requests + now.failed_requests
    return float(hypergeom.sf(now.failed_requests - 1, every, failed, now.requests))


def _worse_answers(before: Served, now: Served, bounds: GuardBounds) -> list[str]:
    found: list[str] = []
    widest = NOISE * (0.25 / len(before.captions) + 0.25 / len(now.captions)) ** 0.5  # error of a share, at most
    drop = float(before.confidence.mean() - now.confidence.mean())
    if drop > bounds.max_confidence_drop and drop > NOISE * _error(before.confidence, now.confidence):
        found.append(f"mean confidence {before.confidence.mean():.2f} -> {now.confidence.mean():.2f}")
    for name, share, bound in (
        ("unusable captions", unusable_share, bounds.max_unusable_rise),
        ("the commonest caption's share", same_share, bounds.max_same_rise),
    ):
        was, is_now = share(before.captions), share(now.captions)
        noise = widest if bound >= bounds.max_same_rise else 0.0
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


def _rows_of(log: Any, version: str, since_unix_s: float) -> Any:
    """The rows of a log, a pyarrow.Table, that are a model's and after a time."""
    return log.filter((pc.field("model_version") == version) & (pc.field("time_unix_s") > since_unix_s))


def _is_first(request_id: str) -> bool:
    """Of the pictures of a request: they are numbered `/0`, `/1`, … behind its id, unless there is one only."""
    return "/" not in request_id or request_id.endswith("/0")


def _loops(caption: str) -> bool:
    words = caption.split()
    return any(one == two == three for one, two, three in zip(words, words[1:], words[2:], strict=False))


def _error(before: NDArray[np.float64], now: NDArray[np.float64]) -> float:
    """Standard error of the difference of two means."""
    return float((before.var() / len(before) + now.var() / len(now)) ** 0.5)
