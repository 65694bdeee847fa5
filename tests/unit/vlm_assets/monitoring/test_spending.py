"""Many looks keep one promise."""

import pytest

from vlm_assets.errors import ConfigError
from vlm_assets.monitoring.spending import alpha_of_look


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_a_years_looks_spend_the_total_and_no_more(power):
    spent = [alpha_of_look(look, 0.05, 8760, power) for look in range(1, 8761)]
    assert sum(spent) == pytest.approx(0.05)
    assert min(spent) > 0


def test_an_even_spending_gives_every_look_the_same():
    assert alpha_of_look(1, 0.05, 100) == pytest.approx(alpha_of_look(100, 0.05, 100)) == pytest.approx(0.0005)


def test_a_power_above_one_saves_for_later():
    assert alpha_of_look(1, 0.05, 10, power=3) < alpha_of_look(10, 0.05, 10, power=3)


def test_after_its_looks_a_budget_begins_anew():
    assert alpha_of_look(11, 0.05, 10, power=3) == alpha_of_look(1, 0.05, 10, power=3)


def test_one_look_has_all():
    assert alpha_of_look(1, 0.01, 1) == 0.01


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0, 0.05, 10), "This is look 0 of 10; both count from 1"),
        ((1, 0.0, 10), "total is 0.0 and power 1.0; a total lies between 0 and 1"),
    ],
)
def test_what_is_no_look_or_no_budget_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        alpha_of_look(*values)
