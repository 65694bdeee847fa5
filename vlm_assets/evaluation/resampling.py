"""Resamples of a test set: pictures drawn with replacement, those of one cluster (a sender, a look) together."""

from collections.abc import Sequence

import numpy as np

from vlm_assets.errors import ConfigError
from vlm_assets.evaluation.corpus import Bools, Floats, Ints

CHUNK = 4_000_000  # random numbers drawn at a time: 32 MB

Labels = Sequence[str] | None  # of n pictures, the cluster of each; None: each stands alone


def cluster_sums(rows: Floats, clusters: Labels) -> Floats:
    """(K, C): the column sums of each cluster's rows of (n, C); clusters in the order in which they first come."""
    if clusters is None:
        return rows
    number = cluster_numbers(clusters)
    sums = np.zeros((int(number.max(initial=-1)) + 1, rows.shape[1]))
    np.add.at(sums, number, rows)
    return sums


def cluster_numbers(clusters: Sequence[str]) -> Ints:
    """(n,) 0, 1, 2, … in the order in which the labels first come."""
    known = {label: number for number, label in enumerate(dict.fromkeys(clusters))}
    return np.fromiter((known[label] for label in clusters), dtype=np.int64, count=len(clusters))


def pick(clusters: Labels, rows: Bools) -> Labels:
    """The labels of some of the pictures, (n,) bool."""
    return None if clusters is None else [label for label, wanted in zip(clusters, rows, strict=True) if wanted]


def resampled_sums(values: Floats, resamples: int, seed: int) -> Floats:
    """(resamples, C): column sums of K rows drawn with replacement from `values` (K, C), once per resample.

    The same K, resamples and seed draw the same rows, whatever the columns.
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
