"""The online guard: what is a degradation, and that it asks for one rollback that names both champions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from vlm_assets.contracts import Recipe
from vlm_assets.errors import ConfigError
from vlm_assets.release.guard import GuardBounds, Served, degradations, more_failures, served_by
from vlm_assets.release.guard_sensor import build_guard_sensor
from vlm_assets.release.jobs import rollback
from vlm_assets.release.ledger import Ledger
from vlm_assets.store import Store
from vlm_serving.failure_log import FailureLog, FailureRow, read_failures
from vlm_serving.request_log import LogRow, RequestLog, read_request_log


def served(
    count: int = 60, *, confidence: float = 0.8, caption: str = "", latency_ms: float = 50.0, failed: int = 0
) -> Served:
    """`count` requests of one picture each were answered, and `failed` more were not."""
    noise = np.random.default_rng(0).normal(0, 0.05, count)
    captions = [caption or f"a coat of colour {number}" for number in range(count)]
    return Served(captions, confidence + noise, np.full(count, latency_ms), count, failed, failed)


def test_the_like_is_within_bounds():
    assert degradations(served(), served(confidence=0.75, latency_ms=80), GuardBounds()) == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (served(confidence=0.4), ["mean confidence 0.80 -> 0.40"]),
        (served(caption="a coat"), ["the commonest caption's share 2 % -> 100 %"]),
        (served(latency_ms=900), ["median latency 50 ms -> 900 ms"]),
        (served(0, failed=30), ["failed requests 0 % -> 100 %"]),
        (served(40, failed=20, confidence=0.4), ["failed requests 0 % -> 33 %", "mean confidence 0.80 -> 0.40"]),
    ],
)
def test_each_degradation_is_told_with_both_figures(now: Served, said: list[str]):
    assert degradations(served(), now, GuardBounds()) == said


def test_empty_and_looping_captions_are_unusable():
    now = replace(served(), captions=["a a a a", "", *served().captions[2:]])
    assert degradations(served(), now, GuardBounds(max_unusable_rise=0.03)) == ["unusable captions 0 % -> 3 %"]


def test_few_pictures_tell_nothing():
    assert degradations(served(), served(29, confidence=0.1), GuardBounds()) == []
    assert degradations(served(), served(0, failed=29), GuardBounds()) == []
    assert degradations(served(), served(29, confidence=0.1, failed=1), GuardBounds()) == []


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (served(500), served(58, failed=2)),  # 3 %, which one of thousands of new champions would have by chance
        (served(500, failed=100), served(500, failed=100)),  # bad, and no worse
        (served(5000, failed=5), served(9870, failed=130)),  # certainly more, and not two points more
    ],
)
def test_failures_within_chance_or_within_the_bound_are_no_degradation(before: Served, now: Served):
    assert degradations(before, now, GuardBounds()) == []


def test_one_request_of_many_pictures_is_one_failure():
    now = replace(served(), failed_requests=1, failed_pictures=32)
    assert degradations(served(500), now, GuardBounds()) == []


def test_a_tenth_that_fails_is_more_than_chance():
    assert degradations(served(500), served(88, failed=12), GuardBounds()) == ["failed requests 0 % -> 12 %"]


def alarms(rate: float, hours: int) -> list[int]:
    """At how many requests each simulated hour ended in an alarm, if it did; looked at every ten requests of 1,200.

    The champion before failed on one request of a hundred, of 500.
    """
    generator, nothing, found = np.random.default_rng(0), served(0), list[int]()
    for _ in range(hours):
        old, new = int((generator.random(500) < 0.01).sum()), (generator.random(1200) < rate).cumsum()
        before = replace(nothing, answered_requests=500 - old, failed_requests=old)
        for count in range(30, 1201, 10):
            failed = int(new[count - 1])
            now = replace(nothing, answered_requests=count - failed, failed_requests=failed)
            if more_failures(before, now, GuardBounds()):
                found.append(count)
                break
    return found


def test_more_failures_are_seen_early_and_as_many_are_hardly_ever_taken_for_more():
    assert len(alarms(0.01, hours=500)) <= 2
    worse = alarms(0.1, hours=200)
    assert len(worse) == 200 and np.median(worse) <= 60


def test_the_time_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLM_GUARD_S", "60")
    assert GuardBounds.from_environment().watch_s == 60
    monkeypatch.setenv("VLM_GUARD_S", "soon")
    with pytest.raises(ConfigError, match="VLM_GUARD_S is 'soon'; it takes seconds from 0"):
        GuardBounds.from_environment()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store with two champions, `old` and `new`, and serving's logs: `answered(version, count, confidence, at_s)`."""
    monkeypatch.setenv("VLM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("VLM_REQUEST_LOG", str(tmp_path / "log"))
    store = Store(tmp_path / "store")
    champion = None
    for name in ("old", "new"):
        made = store.build(Recipe("finetuned_model", "1", {"name": name}), lambda draft: (draft.path / "x").touch())
        champion = Ledger(store).promote(made.ref, name, seen=champion, why="test", run_id="", scores={})
    assert champion is not None

    def answered(version: str, count: int, confidence: float, after_s: float, failed: int = 0) -> None:
        log = RequestLog(tmp_path / "log", flush_s=0.01)
        rows = [
            LogRow(
                champion.time_unix_s + after_s + number / 1000, f"{version}-{number}", version, f"coat {number}",
                confidence + 0.01 * (number % 5), 3, 10, 10, 0.5, 0.1, np.ones(4, np.float32), 40.0, f"p{number}",
            )
            for number in range(count)
        ]  # fmt: skip
        log.append(rows)
        failures, time_s = FailureLog.beside(log, flush_s=0.01), champion.time_unix_s + after_s + 0.5
        failures.append([FailureRow(time_s, "f", version, "captioning-failed", 1) for _ in range(failed)])
        log.close()
        failures.close()

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


def test_a_champion_that_fails_on_a_tenth_is_rolled_back_however_good_its_answers_are(place: Any):
    place("old", 300, 0.8, -60, failed=1)
    place("new", 90, 0.8, 1, failed=10)
    config = tick(place).run_config["ops"]["roll_back_champion"]["config"]
    assert (config["version"], config["only_if_champion"]) == ("old", "new")
    assert config["reason"] == "online guard: failed requests 0 % -> 10 %"


def test_a_champion_that_fails_on_everything_is_rolled_back(place: Any):
    place("old", 60, 0.8, -60)
    place("new", 0, 0.8, 1, failed=40)
    config = tick(place).run_config["ops"]["roll_back_champion"]["config"]
    assert config["reason"] == "online guard: failed requests 0 % -> 100 %"


def test_failures_of_the_old_champion_in_the_meantime_are_not_the_new_ones(place: Any):
    place("old", 300, 0.8, -60)
    place("old", 0, 0.8, 2, failed=40)
    place("new", 60, 0.8, 1)
    assert tick(place).skip_message.startswith("Bundle new is within bounds: 60 pictures since its promotion")


def test_requests_are_counted_whole_and_failures_from_the_first_picture_on(tmp_path: Path, place: Any):
    place("old", 10, 0.8, 0, failed=3)
    log = RequestLog(tmp_path / "log")
    row = LogRow(place.now_s + 5, "", "old", "coat", 0.8, 3, 10, 10, 0.5, 0.1, np.ones(4, np.float32), 40.0, "p")
    log.append([replace(row, request_id=f"many/{number}") for number in range(11)])
    log.close()
    tables = read_request_log(tmp_path / "log"), read_failures(tmp_path / "log")
    served = served_by(*tables, "old")
    assert (len(served), served.answered_requests, served.failed_requests, served.failed_pictures) == (24, 11, 3, 3)
    served = served_by(*tables, "old", last=11)
    assert (len(served), served.answered_requests, served.failed_requests) == (11, 1, 0)


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
