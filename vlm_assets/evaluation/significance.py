"""How sure a number is: percentile bootstrap over pictures (Efron 1979; for captions Koehn 2004, EMNLP)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vlm_assets.errors import ConfigError, CorpusError
from vlm_assets.evaluation.corpus import Floats

LEVEL = 0.95
CHUNK = 4_000_000  # random numbers drawn at a time: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from n pictures."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs with its 95 % interval, from n pairs; `p` one-sided: how often a resample sees no gain."""

    value: float
    low: float
    high: float
    n: int
    p: float


def bootstrap_mean(values: ArrayLike, *, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The mean of n values with its interval. Raises CorpusError (no values), ConfigError (resamples < 1)."""
    column = _column(values)
    means = resampled_sums(column[:, None], resamples, seed)[:, 0] / len(column)
    return estimate(float(column.mean()), means, len(column))


def paired_difference(ours: ArrayLike, theirs: ArrayLike, *, resamples: int = 1000, seed: int = 0) -> Difference:
    """Mean of ours minus mean of theirs, resampled in pairs: value i of both belongs to the same picture.

    p is (1 + resamples with difference <= 0) / (1 + resamples): never 0, and 1 where nothing differs.
    """
    first, second = _column(ours), _column(theirs)
    if len(first) != len(second):
        raise CorpusError(
            f"{len(first):,} values against {len(second):,}; a paired difference needs one of each per picture."
        )
    change = first - second
    means = resampled_sums(change[:, None], resamples, seed)[:, 0] / len(change)
    return difference(float(change.mean()), means, len(change))


def resampled_sums(values: Floats, resamples: int, seed: int) -> Floats:
    """(resamples, K): column sums of n rows drawn with replacement from `values` (n, K), once per resample.

    The same n, resamples and seed draw the same rows, whatever the columns.
    """
    if resamples < 1:
        raise ConfigError(f"resamples is {resamples}; it must be 1 or more (1,000 is usual).")
    rows = len(values)
    generator = np.random.default_rng(seed)
    sums = np.empty((resamples, values.shape[1]))
    times = np.empty((max(1, min(resamples, CHUNK // rows)), rows))
    for start in range(0, resamples, len(times)):
        part = times[: min(len(times), resamples - start)]
        for weights in part:
            weights[:] = np.bincount(generator.integers(rows, size=rows), minlength=rows)
        sums[start : start + len(part)] = part @ values
    return sums


def estimate(value: float, resampled: Floats, n: int) -> Estimate:
    """A value with the percentile interval of its resampled twins."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Estimate(value, low, high, n)


def difference(value: float, resampled: Floats, n: int) -> Difference:
    """A difference with the percentile interval of its resampled twins, and how often these see no gain."""
    found = estimate(value, resampled, n)
    p = (1 + int((resampled <= 0).sum())) / (1 + len(resampled))
    return Difference(found.value, found.low, found.high, found.n, p)


def _column(values: ArrayLike) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise CorpusError(f"A mean needs a list of one value or more, seen shape {column.shape}; give one per picture.")
    return column
