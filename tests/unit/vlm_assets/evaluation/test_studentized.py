"""Intervals of differences: the bootstrap-t and percentiles written out, and true to their level where one is not."""

import numpy as np
import pytest

from vlm_assets.evaluation.bleu import bleu_from_sums
from vlm_assets.evaluation.significance import TAILS, bootstrap_mean, paired_difference
from vlm_assets.evaluation.studentized import studentized_interval


def test_for_means_it_is_the_textbook_bootstrap_t() -> None:
    values = 1 - np.random.default_rng(0).exponential(size=40)
    found = paired_difference(values, np.zeros(40), resamples=500, seed=3)
    generator, error = np.random.default_rng(3), values.std(ddof=1) / np.sqrt(40)
    draws = [values[generator.integers(40, size=40)] for _ in range(500)]
    apart = [(draw.mean() - values.mean()) / (draw.std(ddof=1) / np.sqrt(40)) for draw in draws]
    few, many = np.quantile(apart, TAILS[0], method="lower"), np.quantile(apart, TAILS[1], method="higher")
    low, high = np.quantile([draw.mean() for draw in draws], TAILS)
    assert values.mean() - many * error < low  # of losses that are rare and large, percentiles see too little
    expected = values.mean() - many * error, max(values.mean() - few * error, high)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-3)


def test_for_bleu_it_is_that_with_the_jackknifes_standard_error() -> None:
    rows = bleu_rows(np.random.default_rng(0), 40)
    found = studentized_interval(bleu_from_sums, rows, tails=TAILS, resamples=300, seed=1)
    generator = np.random.default_rng(1)
    draws = [rows[generator.integers(40, size=40)] for _ in range(300)]
    apart = [
        (bleu_from_sums(draw.sum(axis=0)) - bleu_from_sums(rows.sum(axis=0))) / jackknife_error(draw) for draw in draws
    ]
    few, many = np.quantile(apart, TAILS[0], axis=0), np.quantile(apart, TAILS[1], axis=0)
    value, error = bleu_from_sums(rows.sum(axis=0)), jackknife_error(rows)
    np.testing.assert_allclose(found.value, value)
    low, high = np.quantile([bleu_from_sums(draw.sum(axis=0)) for draw in draws], TAILS, axis=0)
    np.testing.assert_allclose(found.low, np.minimum(low, value - many * error), atol=0.01)
    np.testing.assert_allclose(found.high, np.maximum(high, value - few * error), atol=0.01)


def bleu_rows(generator: np.random.Generator, count: int) -> np.ndarray:
    """Lengths of 6 to 9 words, and of each order a share that is correct."""
    length = generator.integers(6, 10, size=count)
    guessed = np.stack([length - order for order in range(4)], axis=1)
    correct = generator.binomial(guessed, [0.8, 0.6, 0.45, 0.35])
    return np.column_stack([length, length + generator.integers(-1, 3, size=count), guessed, correct]).astype(float)


def jackknife_error(rows: np.ndarray) -> np.ndarray:
    without = bleu_from_sums(rows.sum(axis=0) - rows)
    return np.sqrt((len(rows) - 1) / len(rows) * ((without - without.mean(axis=0)) ** 2).sum(axis=0))


def test_it_is_rarely_surely_better_where_nothing_is_and_percentiles_often_are() -> None:
    """Gains on most pictures, rare and large losses, 0 on the whole; 2.5 % is what both promise."""
    generator, wrong = np.random.default_rng(0), np.zeros(2)
    for seed in range(400):
        values = 1 - generator.gamma(0.25, 4, size=30)
        wrong[0] += bootstrap_mean(values, resamples=300, seed=seed).low > 0
        wrong[1] += paired_difference(values, np.zeros(30), resamples=300, seed=seed).low > 0
    percentile, ours = wrong / 400
    assert ours < 0.065 < 0.085 < percentile


def test_where_nearly_all_pictures_tie_a_few_changes_are_no_proof() -> None:
    for better, sure in ((1, False), (2, False), (3, False), (8, True)):
        found = paired_difference([1.0] * better + [0.0] * (70 - better), np.zeros(70))
        assert (found.low > 0) == sure


def test_pictures_of_one_sender_are_no_more_than_one() -> None:
    """Each picture five times, in clusters: as sure as each of them once, not more."""
    values = np.random.default_rng(0).normal(0.2, 1, size=30)
    copies, kin = np.repeat(values, 5), np.repeat([f"sender {number}" for number in range(30)], 5).tolist()
    for measure in (bootstrap_mean, lambda column, **more: paired_difference(column, np.zeros(len(column)), **more)):
        once, clustered, naive = measure(values), measure(copies, clusters=kin), measure(copies)
        assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high))
        assert (clustered.n, clustered.clusters) == (150, 30)
        assert naive.high - naive.low < 0.6 * (once.high - once.low)


def test_resamples_without_any_spread_do_not_make_an_end_infinite() -> None:
    one_of_thirty = [1.0] + [0.0] * 29  # a third of all resamples are 0 throughout
    found = paired_difference(one_of_thirty, np.zeros(30))
    assert -0.1 < found.low < 0 < found.value < found.high < 0.2


def test_one_cluster_has_no_interval() -> None:
    found = paired_difference([1.0, 2.0, 4.0], [0.0, 0.0, 0.0], clusters=["a", "a", "a"])
    assert (found.low, found.high, found.clusters) == (found.value, found.value, 1)


def test_a_figure_without_matches_has_an_interval_of_nothing() -> None:
    rows = bleu_rows(np.random.default_rng(0), 12)
    rows[:, 6:] = 0
    found = studentized_interval(bleu_from_sums, rows, tails=TAILS, resamples=50, seed=0)
    assert np.isfinite([found.low, found.high]).all()
    assert np.abs(found.high - found.low).max() < 1e-6
