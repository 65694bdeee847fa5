"""The bootstrap-t (Efron 1982; Davison and Hinkley 1997, 5.2): intervals that keep to their level on few pictures.

A percentile interval takes the spread of the sample for that of the world. Where losses are rarer and larger than gains
a small sample often lacks them, and finds itself "surely better" far more often than the 2.5 % that it promises. Here
each resample is measured in units of its own standard error, which is small in those very samples.

Where nearly all pictures tie it errs the other way (of two changes in seventy, both for the better, it makes "surely
better"), and percentiles do not. So an interval reaches as far as either of the two.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlm_assets.evaluation.corpus import Floats
from vlm_assets.evaluation.resampling import resampled_sums

STEP = 1e-5  # of a column's sum, for slopes
NO_SPREAD = 1e-4  # of the sample's standard error: a resample with less has none, it drew the same thing throughout

Statistic = Callable[[Floats], Floats]  # column sums (..., C) -> figures (..., F)


@dataclass(frozen=True)
class Interval:
    """Of F figures: their values, interval ends, and what the resamples make of them."""

    value: Floats  # (F,)
    low: Floats  # (F,)
    high: Floats  # (F,)
    drawn: Floats  # (resamples, F)


def studentized_interval(
    statistic: Statistic, rows: Floats, *, tails: tuple[float, float], resamples: int, seed: int
) -> Interval:
    """Intervals of a smooth function of the column sums of K independent rows (K, C): the outer of both kinds' ends.

    Where so many resamples have no spread that an end of the bootstrap-t would be infinite, the percentiles' alone.
    """
    width = rows.shape[1]
    first, second = np.triu_indices(width)
    products = rows[:, first] * rows[:, second]
    drawn_sums = resampled_sums(np.hstack([rows, products]), resamples, seed)
    whole = np.concatenate([rows.sum(axis=0), products.sum(axis=0)])[None]
    value, error = statistic(whole[:, :width])[0], _standard_error(statistic, whole, len(rows))[0]
    drawn, errors = statistic(drawn_sums[:, :width]), _standard_error(statistic, drawn_sums, len(rows))
    away = drawn - value
    apart = np.divide(away, errors, out=np.copysign(np.inf, away), where=errors > NO_SPREAD * error)
    apart[away == 0] = 0
    few = np.quantile(apart, tails[0], axis=0, method="lower")
    many = np.quantile(apart, tails[1], axis=0, method="higher")
    low, high = np.quantile(drawn, tails, axis=0)
    np.minimum(low, value - error * many, out=low, where=np.isfinite(many))
    np.maximum(high, value - error * few, out=high, where=np.isfinite(few))
    return Interval(value, low, high, drawn)


def _standard_error(statistic: Statistic, sums: Floats, rows: int) -> Floats:
    """(B, F): by the delta method, of samples given by their sums and sums of products (B, C + C (C + 1) / 2)."""
    width = int(np.sqrt(2 * sums.shape[1] + 2.25) - 1.5)
    totals = sums[:, :width]  # (B, C)
    first, second = np.triu_indices(width)
    spread = np.empty((len(sums), width, width))
    spread[:, first, second] = spread[:, second, first] = sums[:, width:]
    spread -= totals[:, :, None] * totals[:, None, :] / rows
    slopes = _slopes(statistic, totals)  # (B, F, C)
    variance = np.einsum("bfi,bij,bfj->bf", slopes, spread, slopes, optimize=True) * rows / max(rows - 1, 1)
    return np.sqrt(np.maximum(variance, 0))


def _slopes(statistic: Statistic, totals: Floats) -> Floats:
    """(B, F, C): how much each figure grows with each column's sum (B, C)."""
    here = statistic(totals)
    steps = STEP * np.maximum(np.abs(totals), 1)
    slopes = np.empty((*here.shape, totals.shape[1]))
    for column in range(totals.shape[1]):
        further = totals.copy()
        further[:, column] += steps[:, column]
        slopes[:, :, column] = (statistic(further) - here) / steps[:, column, None]
    return slopes
