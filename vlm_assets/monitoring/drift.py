"""When a difference of embeddings is drift: significant at what this look may spend, and large enough to matter.

Significance says that a difference is there, not that it matters: with enough traffic any difference is significant.
Hence a verdict also asks for an effect of a size that has been seen to harm captions. P-values come from relabelling
(`permutation`), so the false-alarm rate is the one promised at every window size.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vlm_assets.errors import SourceError
from vlm_assets.monitoring.permutation import (
    Floats,
    Statistic,
    observed_labels,
    permutation_p_value,
    require_permutations,
)
from vlm_assets.monitoring.two_sample import classifier_auc, classifier_fit, left_out_errors, squared_mmd

# Squared MMD of the vision embedding at which captions of icon drawings began to be wrong: blur and noise stayed below
# 0.05 and cost nothing, flat colours came to 0.17 and halved CIDEr.
HARMFUL_SQUARED_MMD = 0.1

DRIFTED = "drifted"
NO_DRIFT = "no drift"


@dataclass(frozen=True)
class DriftTest:
    """Outcome of the embedding test. `statistic` is the unbiased squared MMD, about 0 (also below) without drift.

    `p_value` is valid for the tests made together: twice the smaller of theirs, at most 1 (Bonferroni).
    `effect_size` is the statistic in units of HARMFUL_SQUARED_MMD: 0 nothing, 1 where captions began to suffer.
    `n_reference` and `n_current` are the rows compared, after subsampling. `classifier_auc`: 0.5 where a classifier
    cannot tell traffic from reference, 1 where it tells every picture. None for a test that was not made.
    """

    statistic: float
    p_value: float
    n_reference: int
    n_current: int
    effect_size: float
    p_mmd: float | None = None
    p_classifier: float | None = None
    classifier_auc: float | None = None


@dataclass(frozen=True)
class FeatureTest:
    """Outcome of one feature's test. `statistic` is the largest distance of the two distribution functions, 0..1.

    `q_value` is the p-value adjusted for the number of features (Benjamini & Hochberg 1995): calling the features with
    q <= 0.05 drifted makes at most 5 % of those calls false on average. `effect_size` is the difference of the means in
    standard deviations of the reference, None where it has none.
    """

    feature: str
    statistic: float
    p_value: float
    q_value: float
    reference_mean: float
    current_mean: float
    effect_size: float | None


@dataclass(frozen=True)
class Threshold:
    """When a difference is drift: significant, large enough to matter, and seen on enough pictures."""

    alpha: float = 0.01
    minimum_effect: float = 0.7
    min_rows: int = 50


def embedding_test(
    reference: ArrayLike,
    current: ArrayLike,
    *,
    permutations: int = 500,
    max_rows: int = 500,
    seed: int = 0,
) -> DriftTest:
    """Compare embeddings, reference (n, d) with current (m, d), by squared MMD and by a classifier.

    Each side is subsampled to `max_rows`, which bounds memory at a few arrays of (2 max_rows)^2 doubles and time at
    `permutations` products of that size, of which a window without drift takes some hundred. The same rows and seed
    give the same result. Raises SourceError for fewer than two rows, different dimensions or values not finite.
    """
    x, y, generator = _sides(reference, current, max_rows, seed, permutations)
    pooled = np.concatenate([x, y])
    errors = left_out_errors(pooled)
    mmd, p_mmd = permutation_p_value(squared_mmd(pooled), len(x), len(y), permutations, generator)
    _, p_classifier = permutation_p_value(classifier_fit(errors), len(x), len(y), permutations, generator)
    auc = classifier_auc(errors, observed_labels(len(x), len(y)))
    return DriftTest(mmd, both(p_mmd, p_classifier), len(x), len(y), effect_of(mmd), p_mmd, p_classifier, auc)


def both(first: float, second: float) -> float:
    """One p-value of two tests of the same data, however they depend on each other (Bonferroni)."""
    return min(1.0, 2 * min(first, second))


def effect_of(squared_mmd: float) -> float:
    """A squared MMD in units of the one at which captions began to suffer."""
    return max(squared_mmd, 0.0) / HARMFUL_SQUARED_MMD


def feature_tests(
    reference: Mapping[str, ArrayLike],
    current: Mapping[str, ArrayLike],
    *,
    permutations: int = 999,
    max_rows: int = 500,
    seed: int = 0,
) -> list[FeatureTest]:
    """Compare each feature of `reference`, (n,) values, with that of `current`, (m,); sorted by q-value.

    By permutation as well: the tables of Kolmogorov and Smirnov hold for continuous values, token counts are tied.
    """
    require_permutations(permutations)
    names = sorted(reference)
    columns = {name: (_as_column(reference[name], name), _as_column(current[name], name)) for name in names}
    results = [_ks_permutation_test(*columns[name], permutations, max_rows, seed) for name in names]
    adjusted = benjamini_hochberg([p_value for _, p_value in results])
    tests = [
        FeatureTest(name, *result, q_value, *_means(*columns[name]))
        for name, result, q_value in zip(names, results, adjusted, strict=True)
    ]
    return sorted(tests, key=lambda test: test.q_value)


def benjamini_hochberg(p_values: list[float]) -> list[float]:
    """P-values adjusted to control the false-discovery rate, in the order given (Benjamini & Hochberg 1995)."""
    if not p_values:
        return []
    count = len(p_values)
    order = np.argsort(p_values)[::-1]  # the largest first
    scaled = np.asarray(p_values)[order] * count / np.arange(count, 0, -1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return [float(value) for value in adjusted]


def shortage(n_reference: int, n_current: int, threshold: Threshold) -> str | None:
    """Why there is too little to decide on, or None if there is enough."""
    if n_current < threshold.min_rows:
        return f"not enough traffic ({n_current} < {threshold.min_rows})"
    if n_reference < threshold.min_rows:
        return f"not enough reference pictures ({n_reference} < {threshold.min_rows})"
    return None


def decide(test: DriftTest, threshold: Threshold) -> str:
    """`DRIFTED` iff the difference is significant and at least as large as the smallest that matters."""
    significant = test.p_value <= threshold.alpha
    return DRIFTED if significant and test.effect_size >= threshold.minimum_effect else NO_DRIFT


def _means(reference: Floats, current: Floats) -> tuple[float, float, float | None]:
    """Both means and their difference in standard deviations of the reference."""
    means = float(reference.mean()), float(current.mean())
    deviation = float(reference.std())
    return *means, (means[1] - means[0]) / deviation if deviation > 0 else None


def _ks_permutation_test(
    reference: Floats, current: Floats, permutations: int, max_rows: int, seed: int
) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance and its p-value by permutation, which is right for ties as well."""
    generator = np.random.default_rng(seed)
    x, y = _subsample(reference, max_rows, generator), _subsample(current, max_rows, generator)
    return permutation_p_value(_ks_distance(np.concatenate([x, y])), len(x), len(y), permutations, generator)


def _ks_distance(pooled: Floats) -> Statistic:
    """The largest distance of the two distribution functions, for labels of pooled values (N,)."""
    order = np.argsort(pooled, kind="stable")
    last_of_ties = np.append(np.diff(pooled[order]) > 0, True)

    def statistic(labels: Floats) -> Floats:
        n = labels[0].sum()
        m = labels.shape[1] - n
        ordered = labels[:, order]
        reference_cdf = np.cumsum(ordered, axis=1)[:, last_of_ties] / n
        current_cdf = np.cumsum(1 - ordered, axis=1)[:, last_of_ties] / m
        return np.abs(reference_cdf - current_cdf).max(axis=1)

    return statistic


def _sides(
    reference: ArrayLike, current: ArrayLike, max_rows: int, seed: int, permutations: int
) -> tuple[Floats, Floats, np.random.Generator]:
    """Both sides as checked rows, each at most `max_rows`, and the generator that chose them."""
    require_permutations(permutations)
    x, y = _as_rows(reference, "reference"), _as_rows(current, "current")
    _require_same_dimension(x, y)
    generator = np.random.default_rng(seed)
    return _subsample(x, max_rows, generator), _subsample(y, max_rows, generator), generator


def _subsample(rows: Floats, limit: int, generator: np.random.Generator) -> Floats:
    return rows if len(rows) <= limit else rows[np.sort(generator.choice(len(rows), limit, replace=False))]


def _as_rows(values: ArrayLike, side: str) -> Floats:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise SourceError(f"The {side} embeddings have shape {rows.shape}; needed are at least 2 rows of (n, d).")
    return _require_finite(rows, f"{side} embeddings")


def _as_column(values: ArrayLike, name: str) -> Floats:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or len(column) < 2:
        raise SourceError(f"The feature {name} has shape {column.shape}; needed are at least 2 values, (n,).")
    return _require_finite(column, f"values of {name}")


def _require_finite(values: Floats, what: str) -> Floats:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise SourceError(f"{bad} of the {values.size} {what} are not finite. Drop those rows before comparing.")
    return values


def _require_same_dimension(x: Floats, y: Floats) -> None:
    if x.shape[1] != y.shape[1]:
        raise SourceError(
            f"The reference embeddings have {x.shape[1]} dimensions, the current ones {y.shape[1]}: "
            "they come from different models. Compare traffic with the reference of the model that answered it."
        )
