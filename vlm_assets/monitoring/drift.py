"""Two-sample tests whose false-alarm rate is the one promised, at every window size.

A permutation test needs no threshold tuned on other data: if reference and traffic come from one distribution, the
observed statistic is exchangeable with those of relabelled data, so P(p <= alpha) <= alpha for every sample size,
dimension and distribution (Phipson & Smyth 2010, "Permutation P-values should never be zero", eq. 2). The statistics
are the squared maximum mean discrepancy of embeddings (Gretton et al. 2012, "A kernel two-sample test", eq. 3) and the
Kolmogorov-Smirnov distance of single features.

Significance says that a difference is there, not that it matters: with enough traffic any difference is significant.
Hence a verdict also asks for an effect of a size that has been seen to harm captions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlm_assets.errors import ConfigError, SourceError

Floats = NDArray[np.float64]

# Squared MMD of the vision embedding at which captions of icon drawings began to be wrong: blur and noise stayed below
# 0.05 and cost nothing, flat colours came to 0.17 and halved CIDEr.
HARMFUL_SQUARED_MMD = 0.1
# Relabelled data that equals the observed must count as "at least as large", whatever the order of summation.
ROUNDING = 1e-10
SMALLEST_RELATIVE_DISTANCE = 1e-12

DRIFTED = "drifted"
NO_DRIFT = "no drift"


@dataclass(frozen=True)
class DriftTest:
    """Outcome of the embedding test. `statistic` is the unbiased squared MMD, about 0 (also below) without drift.

    `effect_size` is the statistic in units of HARMFUL_SQUARED_MMD: 0 nothing, 1 where captions began to suffer.
    `n_reference` and `n_current` are the rows compared, after subsampling.
    """

    statistic: float
    p_value: float
    n_reference: int
    n_current: int
    effect_size: float


@dataclass(frozen=True)
class FeatureTest:
    """Outcome of one feature's test. `statistic` is the largest distance of the two distribution functions, 0..1.

    `q_value` is the p-value adjusted for the number of features (Benjamini & Hochberg 1995): calling the features with
    q <= 0.05 drifted makes at most 5 % of those calls false on average.
    """

    feature: str
    statistic: float
    p_value: float
    q_value: float
    reference_mean: float
    current_mean: float


@dataclass(frozen=True)
class Threshold:
    """When a difference is drift: significant, large enough to matter, and seen on enough pictures."""

    alpha: float = 0.01
    minimum_effect: float = 1.0
    min_rows: int = 50


def mmd_permutation_test(
    reference: ArrayLike,
    current: ArrayLike,
    *,
    permutations: int = 500,
    max_rows: int = 500,
    seed: int = 0,
) -> DriftTest:
    """Compare embeddings, reference (n, d) with current (m, d), by squared MMD with a Gaussian kernel.

    The kernel's width is the median distance of the pooled rows, hence the same under every relabelling and free of
    the embedding's unit. Each side is subsampled to `max_rows`, which bounds time and memory at (2 max_rows)^2 doubles
    and one product of (permutations, n + m) by (n + m, n + m). The p-value is
    (1 + #{permuted >= observed}) / (1 + permutations), never 0. The same rows and seed give the same result.

    Raises SourceError for fewer than two rows, different dimensions or values that are not finite.
    """
    _require_permutations(permutations)
    x, y = _as_rows(reference, "reference"), _as_rows(current, "current")
    _require_same_dimension(x, y)
    generator = np.random.default_rng(seed)
    x, y = _subsample(x, max_rows, generator), _subsample(y, max_rows, generator)
    kernel = _gaussian_kernel(np.concatenate([x, y]))  # (n + m, n + m), zero diagonal
    labels = _labels(len(x), len(y), permutations, generator)  # (1 + permutations, n + m), the first as observed
    statistics = _squared_mmds(kernel, labels)
    observed = float(statistics[0])
    return DriftTest(
        statistic=observed,
        p_value=_p_value(statistics),
        n_reference=len(x),
        n_current=len(y),
        effect_size=max(observed, 0.0) / HARMFUL_SQUARED_MMD,
    )


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
    _require_permutations(permutations)
    names = sorted(reference)
    columns = {name: (_as_column(reference[name], name), _as_column(current[name], name)) for name in names}
    results = [_ks_permutation_test(*columns[name], permutations, max_rows, seed) for name in names]
    adjusted = benjamini_hochberg([p_value for _, p_value in results])
    tests = [
        FeatureTest(name, statistic, p_value, q_value, float(columns[name][0].mean()), float(columns[name][1].mean()))
        for name, (statistic, p_value), q_value in zip(names, results, adjusted, strict=True)
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


def _squared_mmds(kernel: Floats, labels: Floats) -> Floats:
    """Unbiased squared MMD for each row of labels (P, n + m), 1 = reference; kernel with zero diagonal."""
    n = labels[0].sum()
    m = labels.shape[1] - n
    within_reference = np.einsum("pi,pi->p", labels @ kernel, labels)
    across = labels @ kernel.sum(axis=1) - within_reference
    within_current = kernel.sum() - within_reference - 2 * across
    return within_reference / (n * (n - 1)) + within_current / (m * (m - 1)) - 2 * across / (n * m)


def _gaussian_kernel(rows: Floats) -> Floats:
    """exp(-d^2 / (2 median^2)) of all pairs of rows (N, d); the diagonal, which unbiased sums leave out, is 0."""
    centred = rows - rows.mean(axis=0)
    norms = np.einsum("ij,ij->i", centred, centred)
    squared = norms[:, None] + norms[None, :] - 2 * centred @ centred.T
    # equal rows must be at distance 0 exactly, or the median of constants is the rounding error
    squared[squared < SMALLEST_RELATIVE_DISTANCE * np.square(rows).sum(axis=1).max()] = 0.0
    kernel = np.exp(squared / (-2 * _typical(squared[np.triu_indices(len(rows), 1)])))
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _typical(squared_distances: Floats) -> float:
    """Their median; where most pairs are equal, the mean of the others; where all are, 1."""
    median = float(np.median(squared_distances))
    if median > 0:
        return median
    positive = squared_distances[squared_distances > 0]
    return float(positive.mean()) if positive.size else 1.0


def _ks_permutation_test(
    reference: Floats, current: Floats, permutations: int, max_rows: int, seed: int
) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance and its p-value by permutation, which is right for ties as well."""
    generator = np.random.default_rng(seed)
    x, y = _subsample(reference, max_rows, generator), _subsample(current, max_rows, generator)
    pooled = np.concatenate([x, y])
    order = np.argsort(pooled, kind="stable")
    last_of_ties = np.append(np.diff(pooled[order]) > 0, True)
    labels = _labels(len(x), len(y), permutations, generator)[:, order]
    reference_cdf = np.cumsum(labels, axis=1)[:, last_of_ties] / len(x)
    current_cdf = np.cumsum(1 - labels, axis=1)[:, last_of_ties] / len(y)
    distances = np.abs(reference_cdf - current_cdf).max(axis=1)
    return float(distances[0]), _p_value(distances)


def _labels(n: int, m: int, permutations: int, generator: np.random.Generator) -> Floats:
    """(1 + permutations, n + m) of 1 for reference, 0 for current: the true labels, then shuffled ones."""
    labels = np.zeros((1 + permutations, n + m))
    labels[:, :n] = 1.0
    generator.permuted(labels[1:], axis=1, out=labels[1:])
    return labels


def _p_value(statistics: Floats) -> float:
    """Share of all labellings, the observed (first) included, with a statistic at least as large as the observed."""
    return float(np.count_nonzero(statistics >= statistics[0] - ROUNDING) / len(statistics))


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


def _require_permutations(permutations: int) -> None:
    if permutations < 1:
        raise ConfigError(f"permutations is {permutations}; the test needs at least 1, for alpha 0.01 at least 99.")
