"""How sure a number is: the bootstrap over pictures (Efron 1979; for captions Koehn 2004, EMNLP), clusters as wholes.

Pictures of one cluster (a sender, a product, near duplicates) are not independent, so resamples draw clusters (Davison
and Hinkley 1997, 3.8). Values get percentile intervals; differences, on which the gate decides, reach as
far as the bootstrap-t's besides, which keeps to its level on small and skewed samples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vlm_assets.errors import CorpusError
from vlm_assets.evaluation.corpus import Floats
from vlm_assets.evaluation.resampling import Labels, cluster_sums, resampled_sums
from vlm_assets.evaluation.studentized import Statistic, studentized_interval

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from n pictures of so many clusters."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs with its 95 % interval, from n pairs of so many clusters.

    `p` is one-sided: how often a resample sees no gain.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    p: float


def bootstrap_mean(values: ArrayLike, *, clusters: Labels = None, resamples: int = 1000, seed: int = 0) -> Estimate:
    """The mean of n values with its interval. Raises CorpusError (no values), ConfigError (resamples < 1)."""
    column = _column(values)
    return estimates(_with_count(column), _mean, clusters=clusters, resamples=resamples, seed=seed)[0]


def paired_difference(
    ours: ArrayLike, theirs: ArrayLike, *, clusters: Labels = None, resamples: int = 1000, seed: int = 0
) -> Difference:
    """Mean of ours minus mean of theirs, resampled in pairs: value i of both belongs to the same picture.

    p is (1 + resamples with difference <= 0) / (1 + resamples): never 0, and 1 where nothing differs.
    """
    first, second = _column(ours), _column(theirs)
    if len(first) != len(second):
        raise CorpusError(
            f"{len(first):,} values against {len(second):,}; a paired difference needs one of each per picture."
        )
    rows = _with_count(first - second)
    return differences(rows, _mean, clusters=clusters, resamples=resamples, seed=seed)[0]


def estimates(
    rows: Floats, statistic: Statistic, *, clusters: Labels = None, resamples: int = 1000, seed: int = 0
) -> list[Estimate]:
    """Figures that are a function of the column sums of the rows (n, C) of n pictures, with percentile intervals."""
    sums = cluster_sums(rows, clusters)
    values = statistic(sums.sum(axis=0)).tolist()
    ends = np.quantile(statistic(resampled_sums(sums, resamples, seed)), TAILS, axis=0).T.tolist()
    return [Estimate(value, low, high, len(rows), len(sums)) for value, (low, high) in zip(values, ends, strict=True)]


def differences(
    rows: Floats, statistic: Statistic, *, clusters: Labels = None, resamples: int = 1000, seed: int = 0
) -> list[Difference]:
    """The same for figures that are differences: the wider of percentile and bootstrap-t intervals, end by end."""
    sums = cluster_sums(rows, clusters)
    found = studentized_interval(statistic, sums, tails=TAILS, resamples=resamples, seed=seed)
    chances = ((1 + (found.drawn <= 0).sum(axis=0)) / (1 + resamples)).tolist()
    columns = (found.value.tolist(), found.low.tolist(), found.high.tolist(), chances)
    return [
        Difference(value, low, high, len(rows), len(sums), chance)
        for value, low, high, chance in zip(*columns, strict=True)
    ]


def _mean(sums: Floats) -> Floats:
    """(..., 1) from summed values and counts (..., 2)."""
    return sums[..., :1] / sums[..., 1:]


def _with_count(column: Floats) -> Floats:
    return np.stack([column, np.ones_like(column)], axis=1)


def _column(values: ArrayLike) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not len(column):
        raise CorpusError(f"A mean needs a list of one value or more, seen shape {column.shape}; give one per picture.")
    return column
