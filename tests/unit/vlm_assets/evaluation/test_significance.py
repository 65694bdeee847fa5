"""Intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_assets.errors import ConfigError, CorpusError
from vlm_assets.evaluation import resampling
from vlm_assets.evaluation.resampling import resampled_sums
from vlm_assets.evaluation.significance import bootstrap_mean, paired_difference

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@given(numbers)
def test_the_interval_lies_within_the_values(values: list[float]) -> None:
    found = bootstrap_mean(values, resamples=50)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found.n == len(values)


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(5, 2, size=2000)
    found = bootstrap_mean(values, resamples=4000)
    error = 1.96 * values.std() / np.sqrt(2000)
    assert (found.low, found.high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.01)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    found = [bootstrap_mean(generator.normal(size=60), resamples=400, seed=seed) for seed in range(300)]
    assert 0.90 < np.mean([estimate.low <= 0 <= estimate.high for estimate in found]) < 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.arange(20.0)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)


def test_resamples_draw_as_many_rows_as_there_are_and_columns_together() -> None:
    values = np.stack([np.ones(7), np.arange(7.0), 2 * np.arange(7.0)], axis=1)
    sums = resampled_sums(values, 40, 0)
    assert (sums[:, 0] == 7).all()
    np.testing.assert_allclose(2 * sums[:, 1], sums[:, 2])


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(11, 2))
    whole = resampled_sums(values, 25, 5)
    monkeypatch.setattr(resampling, "CHUNK", 33)
    np.testing.assert_allclose(resampled_sums(values, 25, 5), whole)


def test_a_clear_gain() -> None:
    theirs = np.random.default_rng(0).normal(size=200)
    found = paired_difference(theirs + 0.5, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert (found.p, found.n) == (1 / 1001, 200)


def test_no_difference_is_no_gain() -> None:
    found = paired_difference([1.0, 2.0], [1.0, 2.0])
    assert (found.value, found.p) == (0, 1)


def test_pairing_finds_what_separate_intervals_hide() -> None:
    generator = np.random.default_rng(0)
    theirs = generator.normal(0, 5, size=100)
    ours = theirs + generator.normal(0.3, 0.5, size=100)
    assert bootstrap_mean(ours).low < bootstrap_mean(theirs).high
    assert paired_difference(ours, theirs).low > 0


def test_bad_input() -> None:
    with pytest.raises(CorpusError, match=r"seen shape \(0,\)"):
        bootstrap_mean([])
    with pytest.raises(CorpusError, match="2 values against 1"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ConfigError, match="resamples is 0; it must be 1 or more"):
        bootstrap_mean([1.0], resamples=0)
