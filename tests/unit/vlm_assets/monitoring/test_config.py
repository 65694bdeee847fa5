"""Settings that cannot work are refused before the work starts."""

import pytest
from pydantic import ValidationError

from vlm_assets.errors import ConfigError
from vlm_assets.monitoring.config import DriftConfig, RetrainPolicy


def test_an_alpha_that_no_p_value_can_reach_is_refused():
    with pytest.raises(ValidationError, match=r"leaves 0\.001 for one, but 500 permutations .* at least 2000"):
        DriftConfig(alpha=0.01, windows=10, permutations=500)
    assert DriftConfig(alpha=0.01, windows=10, permutations=2000).threshold(look=3).alpha == pytest.approx(0.001)


def test_the_defaults_can_find_drift_in_every_hour_of_a_year():
    smallest = 2 / (1 + DriftConfig().permutations)
    assert all(smallest <= DriftConfig().threshold(look).alpha for look in (1, 100, 8760, 8761))


def test_policy_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("VLM_RETRAIN_COOLDOWN_S", "90")
    monkeypatch.setenv("VLM_RETRAIN_MAX_ATTEMPTS", "5")
    assert RetrainPolicy.from_environment() == RetrainPolicy(cooldown_s=90.0, max_attempts=5)


def test_policy_without_environment_is_six_hours_and_three_attempts(monkeypatch):
    monkeypatch.delenv("VLM_RETRAIN_COOLDOWN_S", raising=False)
    monkeypatch.delenv("VLM_RETRAIN_MAX_ATTEMPTS", raising=False)
    assert RetrainPolicy.from_environment() == RetrainPolicy(cooldown_s=21_600.0, max_attempts=3)


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_an_unusable_cooldown_is_refused(monkeypatch, text):
    monkeypatch.setenv("VLM_RETRAIN_COOLDOWN_S", text)
    with pytest.raises(ConfigError, match=f"VLM_RETRAIN_COOLDOWN_S is '{text}'; it takes a number from 0"):
        RetrainPolicy.from_environment()


def test_no_attempts_are_refused(monkeypatch):
    monkeypatch.setenv("VLM_RETRAIN_MAX_ATTEMPTS", "0")
    with pytest.raises(ConfigError, match="VLM_RETRAIN_MAX_ATTEMPTS is '0'; it takes a number from 1"):
        RetrainPolicy.from_environment()
