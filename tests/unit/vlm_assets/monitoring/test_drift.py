"""The tests keep their promise: false alarms at the stated rate, harmful shifts found, degenerate data survived."""

import math

import numpy as np
import pytest

from vlm_assets.errors import ConfigError, SourceError
from vlm_assets.monitoring.drift import (
    DRIFTED,
    NO_DRIFT,
    DriftTest,
    Threshold,
    benjamini_hochberg,
    decide,
    embedding_test,
    feature_tests,
    shortage,
)

DIMENSIONS = 64


def null_p_values(n: int, m: int, draws: int, permutations: int = 99) -> np.ndarray:
    """p-values of `draws` comparisons of equal distributions: correlated, skewed, far from the origin."""
    generator = np.random.default_rng(n * 10_007 + m)
    mixing = generator.normal(size=(DIMENSIONS, DIMENSIONS)) * np.geomspace(3, 0.1, DIMENSIONS)
    rows = np.exp(generator.normal(size=(draws, n + m, DIMENSIONS)) / 2) @ mixing + 100
    return np.array([embedding_test(x[:n], x[n:], permutations=permutations, seed=i).p_mmd for i, x in enumerate(rows)])


def binomial_upper_bound(draws: int, rate: float, sigmas: float = 3.3) -> float:
    """What an exact test exceeds in fewer than 1 of 1,000 trials."""
    return draws * rate + sigmas * math.sqrt(draws * rate * (1 - rate))


@pytest.mark.parametrize(("n", "m"), [(50, 50), (100, 50), (150, 100)])
def test_false_alarms_come_at_the_promised_rate(n, m):
    p_values = null_p_values(n, m, draws=300)
    for alpha in (0.01, 0.05, 0.2):
        assert np.count_nonzero(p_values <= alpha) <= binomial_upper_bound(300, alpha)


def test_p_values_without_drift_are_uniform():
    p_values = np.sort(null_p_values(60, 60, draws=400))
    distance = np.abs(p_values - np.arange(1, 401) / 400).max()
    assert distance < 1.95 / math.sqrt(400) + 0.01  # Kolmogorov's 0.1 % bound, and the grid of 1/100


def test_a_shift_of_a_tenth_of_a_deviation_is_found_at_500_pictures():
    generator = np.random.default_rng(1)
    found = 0
    for seed in range(20):
        x, y = generator.normal(size=(500, DIMENSIONS)), generator.normal(size=(500, DIMENSIONS)) + 0.1
        found += embedding_test(x, y, permutations=199, seed=seed).p_mmd <= 0.01
    assert found >= 18


def test_a_change_of_spread_alone_is_found():
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(200, 8)), 1.5 * generator.normal(size=(200, 8))
    assert embedding_test(x, y).p_mmd <= 0.01


def test_statistic_equals_the_double_sum_of_the_paper():
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(7, 3)), generator.normal(size=(5, 3)) + 1
    pooled = np.concatenate([x, y])
    distances = [np.linalg.norm(a - b) for i, a in enumerate(pooled) for b in pooled[i + 1 :]]
    width = np.sqrt(np.median(np.square(distances)))

    def mean_kernel(pairs):
        return np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * width**2)) for a, b in pairs])

    expected = (
        mean_kernel([(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        + mean_kernel([(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        - 2 * mean_kernel([(a, b) for a in x for b in y])
    )
    assert embedding_test(x, y).statistic == pytest.approx(expected, rel=1e-9)


def test_p_is_never_zero():
    x, y = np.zeros((60, 4)), np.full((60, 4), 1000.0) + np.arange(60)[:, None]
    assert embedding_test(x, y, permutations=199).p_mmd == 1 / 200


def test_result_does_not_depend_on_unit_or_origin():
    generator = np.random.default_rng(4)
    x, y = generator.normal(size=(60, 5)), generator.normal(size=(60, 5)) + 0.3
    plain, scaled = embedding_test(x, y), embedding_test(1e4 * x + 7e4, 1e4 * y + 7e4)
    assert scaled.p_mmd == plain.p_mmd
    assert scaled.statistic == pytest.approx(plain.statistic, abs=1e-6)


def test_the_same_rows_and_seed_give_the_same_result():
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(700, 5)), generator.normal(size=(900, 5))
    assert embedding_test(x, y, seed=3) == embedding_test(x, y, seed=3)


def test_large_sides_are_subsampled():
    generator = np.random.default_rng(6)
    test = embedding_test(generator.normal(size=(130, 3)), generator.normal(size=(90, 3)), max_rows=100)
    assert (test.n_reference, test.n_current) == (100, 90)


def test_identical_sides_are_no_drift():
    rows = np.random.default_rng(7).normal(size=(80, 6))
    test = embedding_test(rows, rows)
    assert test.p_value > 0.5
    assert test.effect_size == 0.0


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_constants_that_are_equal_are_no_drift(value):
    test = embedding_test(np.full((50, 3), value), np.full((60, 3), value))
    assert (test.statistic, test.p_value) == (0.0, 1.0)


def test_constants_that_differ_are_drift():
    test = embedding_test(np.full((50, 3), 0.1), np.full((60, 3), 0.2))
    assert test.p_value < 0.01
    assert test.effect_size > 1


def test_a_mostly_constant_side_still_has_a_kernel_width():
    rows = np.zeros((60, 3))
    rows[:5] = np.random.default_rng(8).normal(size=(5, 3))
    assert 0 < embedding_test(rows, np.zeros((60, 3))).p_mmd <= 1


def test_different_dimensions_are_refused_with_the_reason():
    with pytest.raises(SourceError, match=r"reference embeddings have 192 dimensions, the current ones 768: they come"):
        embedding_test(np.zeros((60, 192)), np.zeros((60, 768)))


@pytest.mark.parametrize("bad", [np.zeros((1, 4)), np.zeros(4), np.zeros((0, 4))])
def test_too_few_rows_are_refused(bad):
    with pytest.raises(SourceError, match=r"The current embeddings have shape .*; needed are at least 2 rows"):
        embedding_test(np.zeros((60, 4)), bad)


def test_values_that_are_not_finite_are_refused():
    rows = np.zeros((60, 4))
    rows[3, 1] = np.nan
    with pytest.raises(SourceError, match="1 of the 240 reference embeddings are not finite"):
        embedding_test(rows, np.zeros((60, 4)))


def test_no_permutations_are_refused():
    with pytest.raises(ConfigError, match="permutations is 0; the test needs at least 1"):
        embedding_test(np.zeros((60, 4)), np.zeros((60, 4)), permutations=0)


def test_the_shifted_feature_alone_is_called():
    generator = np.random.default_rng(19)
    reference = {"brightness": generator.normal(size=300), "token_count": generator.integers(5, 12, 300)}
    current = {"brightness": generator.normal(size=200) + 0.6, "token_count": generator.integers(5, 12, 200)}
    first, second = feature_tests(reference, current)
    assert (first.feature, second.feature) == ("brightness", "token_count")
    assert first.q_value <= 0.01 < 0.05 < second.q_value
    assert first.current_mean - first.reference_mean == pytest.approx(0.6, abs=0.2)


def test_tied_values_do_not_alarm_more_often():
    generator = np.random.default_rng(10)
    alarms = 0
    for seed in range(200):
        x, y = generator.integers(0, 3, 60), generator.integers(0, 3, 80)
        alarms += feature_tests({"a": x}, {"a": y}, permutations=99, seed=seed)[0].p_value <= 0.05
    assert alarms <= binomial_upper_bound(200, 0.05)


def test_kolmogorov_smirnov_distance_equals_scipys():
    from scipy.stats import ks_2samp

    generator = np.random.default_rng(11)
    x, y = generator.integers(0, 20, 90), generator.integers(3, 25, 70)
    assert feature_tests({"a": x}, {"a": y})[0].statistic == pytest.approx(ks_2samp(x, y).statistic)


def test_false_discovery_adjustment_equals_scipys():
    from scipy.stats import false_discovery_control

    p_values = [0.04, 0.001, 0.03, 0.5, 0.03]
    assert benjamini_hochberg(p_values) == pytest.approx(false_discovery_control(p_values))
    assert benjamini_hochberg([]) == []


@pytest.mark.parametrize(
    ("p_value", "effect", "verdict"),
    [(0.01, 0.7, DRIFTED), (0.011, 9.0, NO_DRIFT), (0.002, 0.69, NO_DRIFT), (0.5, 0.0, NO_DRIFT)],
)
def test_drift_is_significant_and_large_enough(p_value, effect, verdict):
    assert decide(DriftTest(effect / 10, p_value, 100, 100, effect), Threshold()) == verdict


@pytest.mark.parametrize(
    ("n_reference", "n_current", "reason"),
    [
        (500, 49, "not enough traffic (49 < 50)"),
        (49, 500, "not enough reference pictures (49 < 50)"),
        (50, 50, None),
    ],
)
def test_too_little_is_not_judged(n_reference, n_current, reason):
    assert shortage(n_reference, n_current, Threshold()) == reason
