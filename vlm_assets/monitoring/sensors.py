"""When to look for drift, and when drift asks for a retraining: exactly once per window, never in a hurry.

Nothing here guesses. The drift report in the event log says what was found, the runs in the run storage say what was
already done about it; the sensor has no memory of its own that a restart of the daemon could lose.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from vlm_assets.monitoring.config import COOLDOWN_VARIABLE, RetrainPolicy
from vlm_assets.monitoring.drift import DRIFTED

DRIFT_REPORT = dg.AssetKey("drift_report")
RELEASED_MODEL = dg.AssetKey("released_model")
DATA_VERSION_TAG = "dagster/data_version"
REASON_TAG = "vlm/retrain_reason"
WINDOW_TAG = "vlm/drift_window"
P_VALUE_TAG = "vlm/drift_p_value"
EFFECT_TAG = "vlm/drift_effect_size"
ATTEMPT_TAG = "vlm/retrain_attempt"
TICK_S = 60
HISTORY_RUNS = 100  # enough to see every attempt for a window: attempts are few and a cooldown lies between windows

FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
FINISHED = (*FAILED, dg.DagsterRunStatus.SUCCESS)

AnyJob = dg.JobDefinition | Any  # or the unresolved asset job that `dg.define_asset_job` returns


@dataclass(frozen=True)
class Finding:
    """What the latest drift report says."""

    verdict: str
    p_value: float
    effect_size: float
    n_traffic: int
    reference_version: str
    window_id: str
    released_model_version: str

    @property
    def window(self) -> str:
        """Identity of what was compared with what."""
        return f"{self.reference_version}-{self.window_id}"


@dataclass(frozen=True)
class PastRun:
    """A retraining: when it ended (or was asked for), in Unix seconds, and for which window, if for drift."""

    run_id: str
    status: dg.DagsterRunStatus
    at_s: float
    window: str | None


def build_drift_sensor(
    job: AnyJob, *, policy: RetrainPolicy | None = None, clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """A sensor that requests `job` when the latest drift report says drifted.

    Running by default: without a drifted report it only says why it waits, and the cooldown bounds what it may cost.
    `policy` None: from the environment, read at each tick.
    """

    @dg.sensor(
        name="drift_sensor",
        job=job,
        minimum_interval_seconds=TICK_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a retraining when traffic has drifted from what the released model was validated on.",
    )
    def drift_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        finding = latest_finding(context.instance)
        if finding is None:
            return dg.SkipReason("There is no drift report yet: materialize drift_report or start monitor_schedule.")
        if finding.verdict != DRIFTED:
            return dg.SkipReason(_undrifted(finding))
        if _superseded(context.instance, finding):
            return dg.SkipReason("A model was released after the drift report; waiting for a report on the new one.")
        runs = past_runs(context.instance, job.name)
        return request_or_wait(finding, runs, policy or RetrainPolicy.from_environment(), clock())

    return drift_sensor


def build_monitor_schedule(job: AnyJob) -> dg.ScheduleDefinition:
    """Every hour on the hour, `job` compacts the request log and reports on drift. Stopped until switched on."""
    return dg.ScheduleDefinition(
        name="monitor_schedule",
        job=job,
        cron_schedule="0 * * * *",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Compacts the request log and compares it with the reference, every hour.",
    )


def request_or_wait(
    finding: Finding, runs: Sequence[PastRun], policy: RetrainPolicy, now_s: float
) -> dg.SkipReason | dg.RunRequest:
    """One run request for a drifted window, or the reason why not now.

    A run key is used once for ever, so it carries the attempt: a retraining that failed or was cancelled may be asked
    for again, at once but `max_attempts` times at most. The attempt is counted from the runs themselves, so ticks that
    repeat, overlap or follow a restart come to the same key.
    """
    going = next((run for run in runs if run.status not in FINISHED), None)
    if going:
        return dg.SkipReason(f"Drifted, but retraining {going.run_id} is already {going.status.value.lower()}.")
    answers = [run for run in runs if run.window == finding.window]
    answered = next((run for run in answers if run.status not in FAILED), None)
    if answered:
        return dg.SkipReason(f"Window {finding.window_id} was already answered by retraining {answered.run_id}.")
    if len(answers) >= policy.max_attempts:
        return dg.SkipReason(
            f"Drifted, but {len(answers)} retrainings for window {finding.window_id} failed or were cancelled, "
            f"the last {answers[0].run_id}; the limit is {policy.max_attempts}. "
            "Mend the cause and launch the job by hand."
        )
    others = [run for run in runs if run.window != finding.window]
    left_s = max((run.at_s for run in others), default=float("-inf")) + policy.cooldown_s - now_s
    if left_s > 0:
        return dg.SkipReason(
            f"Drifted, but the last retraining ended {_hours(policy.cooldown_s - left_s)} ago and the cooldown is "
            f"{_hours(policy.cooldown_s)} ({COOLDOWN_VARIABLE}): {_hours(left_s)} to wait."
        )
    return _request(finding, attempt=len(answers) + 1)


def latest_finding(instance: dg.DagsterInstance) -> Finding | None:
    """The latest drift report's verdict, read from its materialization's metadata."""
    event = instance.get_latest_materialization_event(DRIFT_REPORT)
    if event is None or event.asset_materialization is None:
        return None
    values = {name: entry.value for name, entry in event.asset_materialization.metadata.items()}
    return Finding(
        verdict=str(values.get("verdict", "")),
        p_value=_float(values.get("p_value")),
        effect_size=_float(values.get("effect_size")),
        n_traffic=int(_float(values.get("n_traffic", 0))),
        reference_version=str(values.get("reference_version", "")),
        window_id=str(values.get("window_id", "")),
        released_model_version=str(values.get("released_model_version", "")),
    )


def past_runs(instance: dg.DagsterInstance, job_name: str) -> list[PastRun]:
    """The job's latest runs, the newest first, whoever launched them."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=HISTORY_RUNS)
    return [
        PastRun(
            run_id=record.dagster_run.run_id,
            status=record.dagster_run.status,
            at_s=record.end_time or record.create_timestamp.timestamp(),
            window=record.dagster_run.tags.get(WINDOW_TAG),
        )
        for record in records
    ]


def _superseded(instance: dg.DagsterInstance, finding: Finding) -> bool:
    """Whether another model has been released since: the report is not about the model that serves now."""
    event = instance.get_latest_materialization_event(RELEASED_MODEL)
    if event is None or event.asset_materialization is None:
        return False
    released = (event.asset_materialization.tags or {}).get(DATA_VERSION_TAG)
    return released is not None and released != finding.released_model_version


def _request(finding: Finding, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"drift-{finding.window}-{attempt}",
        tags={
            REASON_TAG: "drift",
            WINDOW_TAG: finding.window,
            P_VALUE_TAG: f"{finding.p_value:.4g}",
            EFFECT_TAG: f"{finding.effect_size:.3g}",
            ATTEMPT_TAG: str(attempt),
        },
    )


def _undrifted(finding: Finding) -> str:
    if finding.p_value != finding.p_value:  # NaN: nothing was tested
        return f"Drift was not judged: {finding.verdict}."
    return f"No drift: p = {finding.p_value:.3g}, effect {finding.effect_size:.2g}, n = {finding.n_traffic} pictures."


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
