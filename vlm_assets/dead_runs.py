"""Runs whose process was killed: Dagster goes on believing that they run, and that they hold their place in a pool.

A run started by the daemon is watched by it. One started from a terminal is watched by nobody: after a SIGKILL it stays
"started" forever, and every later run waits for its place in the pool `compute`.
"""

from collections.abc import Iterator

import dagster as dg
import psutil
from dagster import DagsterEventType, DagsterRunStatus

UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
FROM_THE_PROCESS = {DagsterEventType.RUN_START, DagsterEventType.ENGINE_EVENT, DagsterEventType.STEP_START}


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as canceled whose process on this machine is gone, and free what they held; returns their ids.

    Only where the instance's storage is a local SQLite file: elsewhere a process id may be another machine's.
    """
    if type(instance.run_storage).__name__ != "SqliteRunStorage":
        return []
    return [run.run_id for run in list(_dead_runs(instance)) if _end(instance, run)]


def _dead_runs(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED)):
        if run.remote_job_origin is None and not _has_process(instance, run):
            yield run


def _has_process(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process that wrote the run's events lives. One that says nothing yet has the benefit of the doubt."""
    spoken = [
        (entry.dagster_event.pid, entry.timestamp)
        for entry in instance.all_logs(run.run_id, of_type=FROM_THE_PROCESS)
        if entry.dagster_event is not None and entry.dagster_event.pid is not None
    ]
    return not spoken or any(_alive(pid, unix_s) for pid, unix_s in spoken)


def _alive(pid: int, seen_unix_s: float) -> bool:
    """Whether this process lives; one that began after it was seen has only inherited the number."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= seen_unix_s + 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    instance.report_run_canceled(
        run, message="The process of this run is gone: it was killed, or the machine went down."
    )
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return True
