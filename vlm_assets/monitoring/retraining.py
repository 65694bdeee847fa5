"""Whether to retrain now: exactly once per cause, never in a hurry, within a budget.

Nothing here has a memory that a restart of the daemon could lose: the runs in Dagster's storage say what was done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from vlm_assets.monitoring.config import (
    COOLDOWN_VARIABLE,
    HOURS_PER_WEEK_VARIABLE,
    PER_WEEK_VARIABLE,
    RetrainPolicy,
)

REASON_TAG = "vlm/retrain_reason"
WINDOW_TAG = "vlm/drift_window"
WINDOWS_TAG = "vlm/drift_windows"
P_VALUE_TAG = "vlm/drift_p_value"
EFFECT_TAG = "vlm/drift_effect_size"
DATA_TAG = "vlm/retrain_data"
ATTEMPT_TAG = "vlm/retrain_attempt"
NO_RETRIES = {"dagster/max_retries": "0"}  # attempts are counted here: the instance's retries would run beside them
HISTORY_RUNS = 100  # enough to see every attempt for a cause: attempts are few and a cooldown lies between causes
WEEK_S = 7 * 24 * 3600.0

FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
FINISHED = (*FAILED, dg.DagsterRunStatus.SUCCESS)


@dataclass(frozen=True)
class Cause:
    """Why to retrain. `kind` and `identity` name it in run keys, `said` and `what` in sentences."""

    kind: str  # drift | data
    identity: str
    said: str  # Drifted | New data
    what: str  # window abc | these data
    tags: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class PastRun:
    """A retraining: when it ended (or was asked for), in Unix seconds, for which cause, and its device-hours."""

    run_id: str
    status: dg.DagsterRunStatus
    at_s: float
    cause: str | None
    hours: float = 0.0


def request_or_wait(
    cause: Cause, runs: Sequence[PastRun], policy: RetrainPolicy, now_s: float
) -> dg.SkipReason | dg.RunRequest:
    """One run request for a cause, or the reason why not now.

    A run key is used once for ever, so it carries the attempt: a retraining that failed or was cancelled may be asked
    for again, at once but `max_attempts` times at most. The attempt is counted from the runs themselves, so ticks that
    repeat, overlap or follow a restart come to the same key.
    """
    going = next((run for run in runs if run.status not in FINISHED), None)
    if going:
        return dg.SkipReason(f"{cause.said}, but retraining {going.run_id} is already {going.status.value.lower()}.")
    answers = [run for run in runs if run.cause == cause.identity]
    answered = next((run for run in answers if run.status not in FAILED), None)
    if answered:
        return dg.SkipReason(
            f"{cause.what[0].upper()}{cause.what[1:]}: already answered by retraining {answered.run_id}."
        )
    if len(answers) >= policy.max_attempts:
        return dg.SkipReason(
            f"{cause.said}, but {len(answers)} retrainings for {cause.what} failed or were cancelled, "
            f"the last {answers[0].run_id}; the limit is {policy.max_attempts}. "
            "Mend the cause and launch the job by hand."
        )
    others = [run for run in runs if run.cause != cause.identity]
    left_s = max((run.at_s for run in others), default=float("-inf")) + policy.cooldown_s - now_s
    if left_s > 0:
        return dg.SkipReason(
            f"{cause.said}, but the last retraining ended {_hours(policy.cooldown_s - left_s)} ago and the cooldown is "
            f"{_hours(policy.cooldown_s)} ({COOLDOWN_VARIABLE}): {_hours(left_s)} to wait."
        )
    spent = _spent(cause, runs, policy, now_s)
    return spent or _request(cause, attempt=len(answers) + 1)


def _spent(cause: Cause, runs: Sequence[PastRun], policy: RetrainPolicy, now_s: float) -> dg.SkipReason | None:
    """Why the week's budget does not allow another retraining, whoever asked for those before."""
    week = [run for run in runs if run.at_s > now_s - WEEK_S]
    hours = sum(run.hours for run in week)
    if len(week) >= policy.max_per_week:
        return dg.SkipReason(
            f"{cause.said}, but there were {len(week)} retrainings in the last 7 days; the budget is "
            f"{policy.max_per_week} ({PER_WEEK_VARIABLE})."
        )
    if hours >= policy.max_hours_per_week:
        return dg.SkipReason(
            f"{cause.said}, but the retrainings of the last 7 days took {hours:.1f} device-hours; the budget is "
            f"{policy.max_hours_per_week:g} ({HOURS_PER_WEEK_VARIABLE})."
        )
    return None


def past_runs(instance: dg.DagsterInstance, job_name: str) -> list[PastRun]:
    """The job's latest runs, the newest first, whoever launched them."""
    records = instance.get_run_records(dg.RunsFilter(job_name=job_name), limit=HISTORY_RUNS)
    return [
        PastRun(
            run_id=record.dagster_run.run_id,
            status=record.dagster_run.status,
            at_s=record.end_time or record.create_timestamp.timestamp(),
            cause=record.dagster_run.tags.get(WINDOW_TAG) or record.dagster_run.tags.get(DATA_TAG),
            hours=_device_hours(record),
        )
        for record in records
    ]


def _device_hours(record: Any) -> float:
    """Hours from start to end, times the workers that trained: each has a GPU, or its share of the cores."""
    if not record.start_time or not record.end_time:
        return 0.0
    config: Any = record.dagster_run.run_config.get("ops", {}).get("finetuned_model", {}).get("config", {})
    return (record.end_time - record.start_time) / 3600 * int(config.get("workers", 1) or 1)


def _request(cause: Cause, attempt: int) -> dg.RunRequest:
    tags = {REASON_TAG: cause.kind, **cause.tags, ATTEMPT_TAG: str(attempt), **NO_RETRIES}
    return dg.RunRequest(run_key=f"{cause.kind}-{cause.identity}-{attempt}", tags=tags)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
