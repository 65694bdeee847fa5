"""The soak's slope: what grows is seen, what only fluctuates is not, and neighbours alike do not fake certainty."""

import numpy as np
import pytest

from tests.load.soak import Watched, settled, slope

TIMES_S = [2.0 * number for number in range(900)]


def test_a_straight_line_gives_its_slope() -> None:
    growth = slope(TIMES_S, [100 + second / 3600 * 7 for second in TIMES_S])
    assert (growth.mb_per_h, growth.low, growth.high) == pytest.approx((7, 7, 7))
    assert growth.grows


def test_growth_within_noise_is_found() -> None:
    noise = np.random.default_rng(0).normal(0, 5, len(TIMES_S))
    growth = slope(TIMES_S, list(noise + np.asarray(TIMES_S) / 3600 * 40))
    assert growth.grows and growth.low < 40 < growth.high


def test_steady_memory_that_wanders_is_rarely_called_growing() -> None:
    """Autocorrelated noise, 200 times: an interval that took each measurement for a new one is wrong half the time."""
    generator, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        steps, value, walk = generator.normal(0, 1, len(TIMES_S)), 0.0, []
        for step in steps:
            value = 0.9 * value + step
            walk.append(value)
        wrong += slope(TIMES_S, walk).grows
    assert wrong <= 12  # 2.5 % are to be expected, 5 of 200


def test_too_few_measurements_are_refused() -> None:
    with pytest.raises(ValueError, match="23 measurements are too few for a slope; at least 24"):
        slope(TIMES_S[:23], TIMES_S[:23])


def test_the_beginning_is_left_out() -> None:
    assert settled(Watched(TIMES_S[:100], [{"gcs 1": 1.0}] * 100)).times_s[0] == TIMES_S[50]


def test_the_process_that_grows_is_named_first_and_one_that_went_is_not_told() -> None:
    processes = [{"gcs 1": 50.0, "replica 2": 500 + second / 3600 * 9} for second in TIMES_S]
    processes[7]["gone 3"] = 80.0
    watched = Watched(TIMES_S, processes)
    assert watched.memory[7] == pytest.approx(630 + TIMES_S[7] / 400)
    assert list(watched.growth().items()) == [("replica 2", pytest.approx(9)), ("gcs 1", pytest.approx(0))]
