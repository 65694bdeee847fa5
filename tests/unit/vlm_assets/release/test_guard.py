"""The online guard: what is a degradation, and that it asks for one rollback that names both champions."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from vlm_assets.contracts import Recipe
from vlm_assets.errors import ConfigError
from vlm_assets.release.guard import GuardBounds, Served, degradations
from vlm_assets.release.guard_sensor import build_guard_sensor
from vlm_assets.release.jobs import rollback
from vlm_assets.release.ledger import Ledger
from vlm_assets.store import Store
from vlm_serving.request_log import LogRow, RequestLog


def served(count: int = 60, *, confidence: float = 0.8, caption: str = "", latency_ms: float = 50.0) -> Served:
    noise = np.random.default_rng(0).normal(0, 0.05, count)
    captions = [caption or f"a coat of colour {number}" for number in range(count)]
    return Served(captions, confidence + noise, np.full(count, latency_ms))


def test_the_like_is_within_bounds():
    assert degradations(served(), served(confidence=0.75, latency_ms=80), GuardBounds()) == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (served(confidence=0.4), ["mean confidence 0.80 -> 0.40"]),
        (served(caption="a coat"), ["the commonest caption's share 2 % -> 100 %"]),
        (served(latency_ms=900), ["median latency 50 ms -> 900 ms"]),
    ],
)
def test_each_degradation_is_told_with_both_figures(now: Served, said: list[str]):
    assert degradations(served(), now, GuardBounds()) == said


def test_empty_and_looping_captions_are_unusable():
    now = Served(["a a a a", "", *served().captions[2:]], served().confidence, served().latency_ms)
    assert degradations(served(), now, GuardBounds(max_unusable_rise=0.03)) == ["unusable captions 0 % -> 3 %"]


def test_few_pictures_tell_nothing():
    assert degradations(served(), served(29, confidence=0.1), GuardBounds()) == []


def test_the_time_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLM_GUARD_S", "60")
    assert GuardBounds.from_environment().watch_s == 60
    monkeypatch.setenv("VLM_GUARD_S", "soon")
    with pytest.raises(ConfigError, match="VLM_GUARD_S is 'soon'; it takes seconds from 0"):
        GuardBounds.from_environment()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store with two champions, `old` and `new`, and a request log: `answered(version, count, confidence, at_s)`."""
    monkeypatch.setenv("VLM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("VLM_REQUEST_LOG", str(tmp_path / "log"))
    store = Store(tmp_path / "store")
    champion = None
    for name in ("old", "new"):
        made = store.build(Recipe("finetuned_model", "1", {"name": name}), lambda draft: (draft.path / "x").touch())
        champion = Ledger(store).promote(made.ref, name, seen=champion, why="test", run_id="", scores={})
    assert champion is not None

    def answered(version: str, count: int, confidence: float, after_s: float) -> None:
        log = RequestLog(tmp_path / "log", flush_s=0.01)
        rows = [
            LogRow(
                champion.time_unix_s + after_s + number / 1000, f"{version}-{number}", version, f"coat {number}",
                confidence + 0.01 * (number % 5), 3, 10, 10, 0.5, 0.1, np.ones(4, np.float32), 40.0, f"p{number}",
            )
            for number in range(count)
        ]  # fmt: skip
        log.append(rows)
        log.close()

    answered.now_s = champion.time_unix_s  # pyright: ignore[reportFunctionMemberAccess]
    return answered


def tick(place: Any, after_s: float = 10.0) -> Any:
    sensor = build_guard_sensor(rollback, clock=lambda: place.now_s + after_s)
    with dg.DagsterInstance.ephemeral() as instance:
        return sensor(dg.build_sensor_context(instance=instance))


def test_a_bad_champion_asks_for_one_rollback_that_names_both(place: Any):
    place("old", 60, 0.8, -60)
    place("new", 60, 0.3, 1)
    request = tick(place)
    assert request.run_key == "guard-2" == tick(place, 20).run_key
    config = request.run_config["ops"]["roll_back_champion"]["config"]
    assert (config["version"], config["only_if_champion"]) == ("old", "new")
    assert config["reason"].startswith("online guard: mean confidence 0.82 -> 0.32")


def test_a_good_champion_is_only_watched_and_not_for_ever(place: Any):
    place("old", 60, 0.8, -60)
    place("new", 60, 0.8, 1)
    assert tick(place).skip_message.startswith("Bundle new is within bounds: 60 pictures since its promotion, 60 of")
    place("new", 60, 0.1, 2)
    assert tick(place, 3601).skip_message == "Bundle new has been watched for 3600 s."


def test_what_was_rolled_back_is_not_watched(tmp_path: Path, place: Any):
    store = Store(tmp_path / "store")
    entries = Ledger(store).entries()
    ledger = Ledger(store)
    ledger.promote(entries[0].artifact, "old", seen=entries[-1], why="bad", run_id="", scores={}, action="rollback")
    assert tick(place).skip_message == "No promotion to watch, or none before it to go back to."
