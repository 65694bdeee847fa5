"""P-values by relabelling: exact at every sample size, dimension and distribution, with nothing to tune.

If reference and traffic come from one distribution, the observed labels are exchangeable with shuffled ones, hence
P(p <= alpha) <= alpha (Phipson & Smyth 2010, "Permutation P-values should never be zero", eq. 2).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vlm_assets.errors import ConfigError

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # labels (P, n + m), 1 = reference -> one number each, (P,), large = different

# Relabelled data that equals the observed must count as "at least as large", whatever the order of summation.
ROUNDING = 1e-10
ENOUGH = 20  # exceedances after which a large p-value is known well enough
FIRST_BATCH = 100
BATCH = 2_000  # labellings at once: 16 MB at 1,000 rows


def permutation_p_value(
    statistic: Statistic, n: int, m: int, permutations: int, generator: np.random.Generator
) -> tuple[float, float]:
    """The statistic of the first `n` rows against the `m` others, and its p-value, never 0.

    Sequential (Besag & Clifford 1991, "Sequential Monte Carlo p-values"): shuffling ends when ENOUGH shuffled
    statistics were at least as large, p = ENOUGH / shuffles, which is as exact; most windows without drift take a
    hundred of the `permutations` that a small p-value needs. Raises ConfigError for fewer than one.
    """
    require_permutations(permutations)
    observed = float(statistic(observed_labels(n, m))[0])
    shuffled = exceeding = 0
    while shuffled < permutations:
        batch = min(max(FIRST_BATCH, shuffled), BATCH, permutations - shuffled)
        at_least = np.flatnonzero(statistic(shuffled_labels(n, m, batch, generator)) >= observed - ROUNDING)
        if exceeding + len(at_least) >= ENOUGH:
            return observed, ENOUGH / (shuffled + int(at_least[ENOUGH - exceeding - 1]) + 1)
        exceeding += len(at_least)
        shuffled += batch
    return observed, (1 + exceeding) / (1 + permutations)


def observed_labels(n: int, m: int) -> Floats:
    """(1, n + m): 1 for the `n` rows of the reference, then 0 for the `m` of traffic."""
    return np.repeat([1.0, 0.0], [n, m])[None]


def shuffled_labels(n: int, m: int, count: int, generator: np.random.Generator) -> Floats:
    """(count, n + m): the same ones and zeros in random order, row by row."""
    labels = np.repeat(observed_labels(n, m), count, axis=0)
    return generator.permuted(labels, axis=1, out=labels)


def require_permutations(permutations: int) -> None:
    """ConfigError for fewer than one."""
    if permutations < 1:
        raise ConfigError(f"permutations is {permutations}; the test needs at least 1, for alpha 0.01 at least 99.")
