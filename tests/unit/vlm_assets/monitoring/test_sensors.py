"""The drift sensor by evaluation: what a tick answers to a report and to the runs so far."""

import time

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from vlm_assets.monitoring.config import RetrainPolicy
from vlm_assets.monitoring.news import News
from vlm_assets.monitoring.retraining import DATA_TAG, WINDOW_TAG
from vlm_assets.monitoring.sensors import build_data_sensor, build_drift_sensor, build_monitor_schedule

HOUR_S = 3600.0
WINDOW = "model-window"


@dg.op
def nothing() -> None:
    """Stands for the whole chain."""


@dg.job
def retrain() -> None:
    """Stands for the retraining job."""
    nothing()


@dg.job
def ask_for_captions() -> None:
    """Stands for the list of pictures to caption."""
    nothing()


NEWS = News(corrections=12, source_changed=False, identity="data-1")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def tick(instance):
    """Evaluates the sensor once, `after_s` seconds from now."""

    def evaluate(after_s: float = 0.0, news: News | None = NEWS, **policy):
        rules = RetrainPolicy(**policy)
        sensor = build_drift_sensor(
            retrain, ask_for_captions, policy=rules, clock=lambda: time.time() + after_s, look=lambda: news
        )
        return sensor(dg.build_sensor_context(instance=instance))

    return evaluate


def report(instance, verdict="drifted", window="window", **metadata):
    numbers = {} if verdict.startswith("not enough") else {"p_value": 0.002, "effect_size": 1.7}
    values = {
        "verdict": verdict,
        "n_traffic": 120,
        "reference_version": "model",
        "window_id": window,
        "released_model_version": "release-1",
        "confirmed": verdict == "drifted",
        "windows_in_a_row": int(verdict == "drifted"),
        **numbers,
        **metadata,
    }
    instance.report_runless_asset_event(dg.AssetMaterialization("drift_report", metadata=values))


def past_run(instance, status, window=WINDOW):
    tags = {WINDOW_TAG: window} if window else {}
    return create_run_for_test(instance, job_name="retrain", status=status, tags=tags)


def reason(answer) -> str:
    assert isinstance(answer, dg.SkipReason)
    return answer.skip_message


def test_without_a_report_it_says_how_to_get_one(tick):
    assert "There is no drift report yet" in reason(tick())


def test_without_drift_it_skips_with_the_numbers(instance, tick):
    report(instance, "no drift", p_value=0.43, effect_size=0.0)
    assert reason(tick()) == "No drift: p = 0.43, effect 0, n = 120 pictures."


def test_with_too_little_traffic_it_says_so(instance, tick):
    report(instance, "not enough traffic (12 < 50)")
    assert reason(tick()) == "Drift was not judged: not enough traffic (12 < 50)."


def test_drift_requests_one_run_that_says_why(instance, tick):
    report(instance)
    request = tick()
    assert isinstance(request, dg.RunRequest)
    assert (request.run_key, request.job_name) == ("drift-model-window-1", "retrain")
    assert request.run_config == {}
    assert request.tags == {
        "vlm/retrain_reason": "drift",
        "vlm/drift_window": WINDOW,
        "vlm/drift_windows": "window",
        "vlm/drift_p_value": "0.002",
        "vlm/drift_effect_size": "1.7",
        "vlm/retrain_attempt": "1",
        "dagster/max_retries": "0",
    }


def test_a_second_tick_before_the_run_exists_has_the_same_key(instance, tick):
    report(instance)
    assert tick().run_key == tick().run_key


def test_only_the_latest_report_counts(instance, tick):
    report(instance)
    report(instance, "no drift")
    assert reason(tick()).startswith("No drift")


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_a_retraining_under_way_is_waited_for(instance, tick, status):
    report(instance)
    run = past_run(instance, dg.DagsterRunStatus[status], window=None)
    assert reason(tick()) == f"Drifted, but retraining {run.run_id} is already {status.lower()}."


def test_a_window_is_answered_once(instance, tick):
    report(instance)
    run = past_run(instance, dg.DagsterRunStatus.SUCCESS)
    assert reason(tick(after_s=100 * HOUR_S)) == f"Window window: already answered by retraining {run.run_id}."


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_failed_retraining_is_asked_for_again_under_the_next_key(instance, tick, status):
    report(instance)
    past_run(instance, status)
    assert tick().run_key == "drift-model-window-2"
    past_run(instance, status)
    assert tick().run_key == "drift-model-window-3"


def test_attempts_are_bounded(instance, tick):
    report(instance)
    for _ in range(3):
        last = past_run(instance, dg.DagsterRunStatus.FAILURE)
    text = reason(tick(after_s=1000 * HOUR_S))
    assert text.startswith("Drifted, but 3 retrainings for window window failed or were cancelled, the last ")
    assert f"{last.run_id}; the limit is 3" in text
    assert tick(max_attempts=4).run_key == "drift-model-window-4"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
@pytest.mark.parametrize("window", ["model-earlier", None])
def test_cooldown_counts_from_the_last_retraining_of_whatever_cause(instance, tick, status, window):
    report(instance)
    past_run(instance, status, window=window)
    assert reason(tick(after_s=2 * HOUR_S)) == (
        "Drifted, but the last retraining ended 2.0 h ago and the cooldown is 6.0 h (VLM_RETRAIN_COOLDOWN_S): "
        "4.0 h to wait."
    )
    assert tick(after_s=6 * HOUR_S + 1).run_key == "drift-model-window-1"
    assert tick(cooldown_s=0).run_key == "drift-model-window-1"


def test_runs_of_other_jobs_do_not_matter(instance, tick):
    report(instance)
    create_run_for_test(instance, job_name="monitor", status=dg.DagsterRunStatus.STARTED)
    assert tick().run_key == "drift-model-window-1"


def test_a_report_on_a_model_that_was_replaced_is_not_acted_on(instance, tick):
    report(instance)
    tags = {"dagster/data_version": "release-2"}
    instance.report_runless_asset_event(dg.AssetMaterialization("released_model", tags=tags))
    assert reason(tick()) == "A model was released after the drift report; waiting for a report on the new one."
    report(instance, released_model_version="release-2")
    assert tick().run_key == "drift-model-window-1"


def test_cooldown_is_read_from_the_environment_at_each_tick(instance, monkeypatch):
    report(instance, confirmed=True)
    past_run(instance, dg.DagsterRunStatus.SUCCESS, window=None)
    sensor = build_drift_sensor(retrain, ask_for_captions, look=lambda: NEWS)
    monkeypatch.setenv("VLM_RETRAIN_COOLDOWN_S", "7200")
    assert "the cooldown is 2.0 h" in reason(sensor(dg.build_sensor_context(instance=instance)))
    monkeypatch.setenv("VLM_RETRAIN_COOLDOWN_S", "0")
    assert sensor(dg.build_sensor_context(instance=instance)).run_key == "drift-model-window-1"


def test_sensor_and_schedule_load_with_asset_jobs():
    @dg.asset
    def drift_report():
        return 1

    job = dg.define_asset_job("monitor", [drift_report])
    sensor, schedule = build_drift_sensor(job, job), build_monitor_schedule(job)
    dg.Definitions.validate_loadable(dg.Definitions([drift_report], [schedule], [sensor], jobs=[job]))
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.cron_schedule == "0 * * * *"


def test_what_is_not_confirmed_waits_and_says_so(instance, tick):
    report(instance, window="one", confirmed=False)
    assert reason(tick()).startswith("Drifted in 1 window in a row, not confirmed yet")
    report(instance, "not enough traffic (3 < 50)", window="few")
    report(instance, window="two", windows_in_a_row=2)
    request = tick()
    assert (request.run_key, request.tags["vlm/drift_windows"]) == ("drift-model-two-1", "two,one")


def test_a_window_without_drift_and_another_model_are_not_in_the_row(instance, tick):
    report(instance, window="one")
    report(instance, "no drift", window="calm")
    report(instance, window="two")
    assert tick().tags["vlm/drift_windows"] == "two"
    report(instance, window="three", reference_version="other")
    assert tick().tags["vlm/drift_windows"] == "three"


def test_with_nothing_new_to_learn_from_it_asks_for_captions_once_per_window(instance, tick):
    report(instance)
    request = tick(news=News(0, False, "data-0"))
    assert (request.run_key, request.job_name) == ("ask-model-window", "ask_for_captions")
    assert tick(news=News(0, False, "data-0")).run_key == request.run_key
    assert tick(news=News(0, True, "data-1")).job_name == "retrain"


def test_the_budget_counts_runs_of_seven_days_and_their_hours(instance, tick):
    report(instance)
    past_run(instance, dg.DagsterRunStatus.SUCCESS, window="earlier")
    text = reason(tick(cooldown_s=0, max_per_week=1))
    assert text == (
        "Drifted, but there were 1 retrainings in the last 7 days; the budget is 1 (VLM_RETRAIN_MAX_PER_WEEK)."
    )
    assert reason(tick(cooldown_s=0, max_hours_per_week=0)).startswith(
        "Drifted, but the retrainings of the last 7 days"
    )
    assert tick(after_s=8 * 24 * HOUR_S, max_per_week=1).run_key == "drift-model-window-1"


@pytest.fixture
def data_tick(instance):
    def evaluate(news: News | None, **policy):
        sensor = build_data_sensor(retrain, policy=RetrainPolicy(**policy), look=lambda: news)
        return sensor(dg.build_sensor_context(instance=instance))

    return evaluate


def test_new_pictures_or_enough_corrections_ask_for_a_retraining(data_tick):
    assert reason(data_tick(None)).startswith("There is no champion yet")
    assert reason(data_tick(NEWS)) == (
        "The source is what the champion was trained on; 12 of 100 corrections accepted since."
    )
    request = data_tick(NEWS, min_corrections=12)
    assert request.run_key == "data-data-1-1"
    assert (request.tags["vlm/retrain_reason"], request.tags["vlm/retrain_news"]) == ("data", "12 corrections")
    assert data_tick(News(0, True, "data-2")).tags["vlm/retrain_news"] == "source changed"


def test_the_same_data_are_answered_once(instance, data_tick):
    run = create_run_for_test(
        instance, job_name="retrain", status=dg.DagsterRunStatus.SUCCESS, tags={DATA_TAG: "data-1"}
    )
    assert reason(data_tick(NEWS, min_corrections=1)) == f"These data: already answered by retraining {run.run_id}."
