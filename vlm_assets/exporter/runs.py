"""Runs, daemons, sensors and schedules as samples."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, TickStatus

from vlm_assets.exporter.gauges import Sample

MAX_RUNS = 2_000  # looked at; older ones are not counted
DAYS_30_S = 30 * 86_400.0
SUCCESS = dg.DagsterRunStatus.SUCCESS
FINISHED = (SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def run_samples(instance: dg.DagsterInstance, now_s: float) -> Iterator[Sample]:
    """Counts by status, and what each job's last finished run came to."""
    records = instance.get_run_records(limit=MAX_RUNS)  # the newest first
    by_job: dict[str, list[dg.RunRecord]] = defaultdict(list)
    for record in records:
        by_job[record.dagster_run.job_name].append(record)
    for job, own in by_job.items():
        counts = Counter(record.dagster_run.status for record in own)
        for status, count in counts.items():
            yield Sample("vlm_dagster_runs", count, (job, status.value.lower()))
        yield from _finished(job, [record for record in own if record.dagster_run.status in FINISHED], now_s)


def _finished(job: str, records: Sequence[dg.RunRecord], now_s: float) -> Iterator[Sample]:
    ended = sorted(records, key=_end_s)
    if not ended:
        return
    last = ended[-1]
    yield Sample("vlm_dagster_last_run_ok", float(last.dagster_run.status == SUCCESS), (job,))
    yield Sample("vlm_dagster_last_run_end_timestamp_seconds", _end_s(last), (job,))
    yield Sample("vlm_dagster_last_run_duration_seconds", _duration_s(last), (job,))
    recent = sum(_duration_s(record) for record in ended if _end_s(record) > now_s - DAYS_30_S)
    yield Sample("vlm_dagster_run_seconds_30d", recent, (job,))
    good = [record for record in ended if record.dagster_run.status == SUCCESS]
    if good:
        yield Sample("vlm_dagster_last_success_timestamp_seconds", _end_s(good[-1]), (job,))


def _end_s(record: dg.RunRecord) -> float:
    return record.end_time or record.create_timestamp.timestamp()


def _duration_s(record: dg.RunRecord) -> float:
    """0 for a run that never started: cancelled in the queue."""
    return record.end_time - record.start_time if record.start_time and record.end_time else 0.0


def daemon_samples(instance: dg.DagsterInstance) -> Iterator[Sample]:
    """Each daemon that this instance's settings ask for."""
    for name, status in instance.get_daemon_statuses().items():
        if status.required:
            yield Sample("vlm_dagster_daemon_healthy", float(bool(status.healthy)), (name.lower(),))


def automation_samples(instance: dg.DagsterInstance) -> Iterator[Sample]:
    """Sensors and schedules that have been on: before its first tick Dagster's storage does not know one."""
    for state in instance.all_instigator_state():
        yield from _automation(instance, state)


def _automation(instance: dg.DagsterInstance, state: InstigatorState) -> Iterator[Sample]:
    labels = (state.instigator_type.value.lower(), state.instigator_name)
    yield Sample("vlm_dagster_automation_running", float(state.is_running), labels)
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if ticks:
        yield Sample("vlm_dagster_automation_last_tick_timestamp_seconds", ticks[0].timestamp, labels)
        yield Sample("vlm_dagster_automation_last_tick_ok", float(ticks[0].status != TickStatus.FAILURE), labels)
