"""When to look for drift, and what asks for a retraining: confirmed drift, new pictures, corrections.

Nothing here guesses. The drift reports in the event log say what was found, the runs in the run storage what was done
about it, the store what the champion was trained on.
"""

import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from vlm_assets.monitoring.config import RetrainPolicy, tick_s
from vlm_assets.monitoring.drift import DRIFTED
from vlm_assets.monitoring.findings import Finding, drifted_windows, findings, superseded, undrifted
from vlm_assets.monitoring.news import News, news
from vlm_assets.monitoring.retraining import (
    DATA_TAG,
    EFFECT_TAG,
    P_VALUE_TAG,
    WINDOW_TAG,
    WINDOWS_TAG,
    Cause,
    past_runs,
    request_or_wait,
)
from vlm_assets.resources import StoreResource

TICK_S = 60
DATA_TICK_S = 3600  # a source's fingerprint may take reading all of it

AnyJob = dg.JobDefinition | Any  # or the unresolved asset job that `dg.define_asset_job` returns
Answer = dg.SkipReason | dg.RunRequest
LookForNews = Callable[[], News | None]


def build_drift_sensor(
    job: AnyJob,
    ask: AnyJob,
    *,
    policy: RetrainPolicy | None = None,
    clock: Callable[[], float] = time.time,
    look: LookForNews | None = None,
) -> dg.SensorDefinition:
    """A sensor that requests `job` when drift is confirmed, or `ask` if there is nothing new to learn from.

    Running by default: without a drifted report it only says why it waits; cooldown and budget bound what it may cost.
    `policy` None: from the environment, read at each tick. `look`: what there is to learn from, the store's by default.
    """

    @dg.sensor(
        name="drift_sensor",
        jobs=[job, ask],
        minimum_interval_seconds=tick_s(TICK_S),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a retraining when traffic has drifted from what the released model was validated on; "
        "a list of pictures to caption, if nothing that shows the new kind has captions yet.",
    )
    def drift_sensor(context: dg.SensorEvaluationContext) -> Answer:
        found = findings(context.instance)
        if not found:
            return dg.SkipReason("There is no drift report yet: materialize drift_report or start monitor_schedule.")
        if found[0].verdict != DRIFTED:
            return dg.SkipReason(undrifted(found[0]))
        if superseded(context.instance, found[0]):
            return dg.SkipReason("A model was released after the drift report; waiting for a report on the new one.")
        if not found[0].confirmed:
            return _unconfirmed(found[0].windows_in_a_row)
        rules = policy or RetrainPolicy.from_environment()
        return _retrain_or_ask(context.instance, found[0], drifted_windows(found), rules)

    def _retrain_or_ask(
        instance: dg.DagsterInstance, finding: Finding, windows: list[str], rules: RetrainPolicy
    ) -> Answer:
        answer = request_or_wait(_drift(finding, windows), past_runs(instance, job.name), rules, clock())
        if isinstance(answer, dg.SkipReason):
            return answer
        known = (look or news_of_store)()
        if known is not None and known.nothing:
            return _ask(ask, finding)
        return answer.with_replaced_attrs(job_name=job.name)

    return drift_sensor


def build_data_sensor(
    job: AnyJob,
    *,
    policy: RetrainPolicy | None = None,
    clock: Callable[[], float] = time.time,
    look: LookForNews | None = None,
) -> dg.SensorDefinition:
    """A sensor that requests `job` when the source has changed, or enough corrections have been accepted."""

    @dg.sensor(
        name="data_sensor",
        job=job,
        minimum_interval_seconds=tick_s(DATA_TICK_S),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Requests a retraining when the source has changed since the champion was trained, or enough "
        "corrections were accepted. Stopped until switched on: what a batch is, you know best.",
    )
    def data_sensor(context: dg.SensorEvaluationContext) -> Answer:
        known, rules = (look or news_of_store)(), policy or RetrainPolicy.from_environment()
        if known is None:
            return dg.SkipReason("There is no champion yet: materialize released_model first.")
        if not known.source_changed and known.corrections < rules.min_corrections:
            whom = f"refused candidate {known.refused}" if known.refused else "champion"
            return dg.SkipReason(
                f"The source is what the {whom} was trained on; {known.corrections} of {rules.min_corrections} "
                "corrections accepted since."
            )
        return request_or_wait(_data(known), past_runs(context.instance, job.name), rules, clock())

    return data_sensor


def build_monitor_schedule(job: AnyJob) -> dg.ScheduleDefinition:
    """Every hour on the hour, `job` compacts the request log and reports on drift. Stopped until switched on."""
    return dg.ScheduleDefinition(
        name="monitor_schedule",
        job=job,
        cron_schedule="0 * * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Compacts the request log, collects corrections and compares with the reference, every hour.",
    )


def build_evaluation_schedule(job: AnyJob) -> dg.ScheduleDefinition:
    """Every Monday morning, `job` evaluates the champion on the pictures as they are now. Stopped until switched on."""
    return dg.ScheduleDefinition(
        name="evaluation_schedule",
        job=job,
        cron_schedule="0 5 * * 1",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Evaluates the champion on the held-out pictures of the source as it is now, weekly.",
    )


def news_of_store() -> News | None:
    """What there is to learn from, by the store of this deployment."""
    return news(StoreResource().open())


def _unconfirmed(row: int) -> dg.SkipReason:
    windows = f"{row} window{'s' * (row != 1)}"
    return dg.SkipReason(f"Drifted in {windows} in a row, not confirmed yet: see confirm_windows of drift_report.")


def _drift(finding: Finding, windows: list[str]) -> Cause:
    tags = {
        WINDOW_TAG: finding.window,
        WINDOWS_TAG: ",".join(windows),
        P_VALUE_TAG: f"{finding.p_value:.4g}",
        EFFECT_TAG: f"{finding.effect_size:.3g}",
    }
    return Cause("drift", finding.window, "Drifted", f"window {finding.window_id}", tags)


def _data(known: News) -> Cause:
    why = "source changed" if known.source_changed else f"{known.corrections} corrections"
    return Cause("data", known.identity, "New data", "these data", {DATA_TAG: known.identity, "vlm/retrain_news": why})


def _ask(ask: AnyJob, finding: Finding) -> dg.RunRequest:
    """Once per released model and window."""
    return dg.RunRequest(run_key=f"ask-{finding.window}", job_name=ask.name, tags={WINDOW_TAG: finding.window})
