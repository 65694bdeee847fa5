"""What a deployment keeps: its home, the artifact store, Dagster's database, the champion."""

import os
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vlm_assets.doctor.finding import Finding, State, ok
from vlm_assets.errors import VlmError
from vlm_assets.resources import StoreResource
from vlm_assets.store import Store
from vlm_assets.store_local import LocalBackend

ENOUGH_BYTES = 10 * 2**30  # a base model with its checkpoints and a snapshot's copy; below that: watch it
TOO_LITTLE_BYTES = 2**30  # below that the next training ends with "no room"
STUCK_S = 24 * 3600.0
PROBE = "doctor/probe.json"


def home(environment: Mapping[str, str]) -> Finding:
    """DAGSTER_HOME: there, writable, with room."""
    path = Path(environment.get("DAGSTER_HOME") or "dagster_home").absolute()
    if not (path / "dagster.yaml").is_file():
        return Finding(State.WARN, "home", f"{path} is no Dagster home yet", "make up (or make demo) prepares it.")
    probe = path / f".doctor-{uuid.uuid4().hex}"
    try:
        probe.write_text("x")
    except OSError as error:
        advice = "Give write permission or room, or set DAGSTER_HOME to another folder."
        return Finding(State.FAIL, "home", f"cannot write to {path}: {error.strerror}", advice)
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return _with_room("home", str(path), path, "DAGSTER_HOME")


def store() -> Finding:
    """The artifact store: a small document is written, read back and, on a disk, removed again."""
    opened, text = StoreResource().open(), uuid.uuid4().hex
    try:
        opened.backend.write_text(PROBE, text)
        back = opened.backend.read_text(PROBE)
    except (VlmError, OSError) as error:
        return Finding(State.FAIL, "store", str(error), "Mend that, or point VLM_STORE at another place.")
    finally:
        _remove_probe(opened)
    if back != text:
        advice = "Two writers, or a cache between: see that nothing else answers at VLM_STORE."
        return Finding(State.FAIL, "store", f"{opened.uri} did not give back what was written", advice)
    return _with_room("store", opened.uri, opened.backend.housekeeping, opened.backend.disk_setting)


def _remove_probe(opened: Store) -> None:
    if isinstance(opened.backend, LocalBackend):
        probe = opened.backend.root / PROBE
        with suppress(OSError):
            probe.unlink(missing_ok=True)
            probe.parent.rmdir()


def _with_room(subject: str, where: str, disk: Path, setting: str) -> Finding:
    there = next(path for path in (disk, *disk.parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    found = f"{where}: writes and reads; {free / 2**30:.1f} GiB free"
    if free >= ENOUGH_BYTES:
        return ok(subject, found)
    state = State.FAIL if free < TOO_LITTLE_BYTES else State.WARN
    return Finding(state, subject, found, f"Free some space below {there}, or set {setting} to a larger disk.")


def database() -> Finding:
    """Dagster's storage answers, its schema is this version's, and no run has been going for ever."""
    import dagster as dg

    path = Path(os.environ.get("DAGSTER_HOME") or "dagster_home").absolute()
    if not (path / "dagster.yaml").is_file():
        return Finding(State.ABSENT, "database", "no Dagster home yet")
    os.environ["DAGSTER_HOME"] = str(path)
    with dg.DagsterInstance.get() as instance:
        total = instance.get_runs_count()
        going = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        started = [(one.dagster_run.run_id, time.time() - one.start_time) for one in going if one.start_time]
        kind = type(instance.run_storage).__name__
    stuck = [f"{run_id} ({age_s / 3600:.0f} h)" for run_id, age_s in started if age_s > STUCK_S]
    if stuck:
        advice = "docs/operations.md, A run is stuck: look at its log, then terminate it in the UI."
        return Finding(State.WARN, "database", f"running for over a day: {', '.join(stuck)}", advice)
    return ok("database", f"{kind}, {total} runs, {len(going)} of them running")


def daemon() -> Finding:
    """Dagster's daemon: sensors, schedules and the queue need its heartbeat."""
    import dagster as dg
    from dagster._daemon.types import DaemonHeartbeat

    path = Path(os.environ.get("DAGSTER_HOME") or "dagster_home").absolute()
    if not (path / "dagster.yaml").is_file():
        return Finding(State.ABSENT, "daemon", "no Dagster home yet")
    with dg.DagsterInstance.get() as instance:
        beats: Mapping[str, DaemonHeartbeat] = instance.get_daemon_heartbeats()
    if not beats:
        return Finding(State.ABSENT, "daemon", "has never run here: no sensor or schedule is at work")
    age_s = time.time() - max(beat.timestamp for beat in beats.values())
    errors = [f"{name}: {beat.errors[0].message.strip()}" for name, beat in beats.items() if beat.errors]
    if age_s > 300:
        return Finding(State.WARN, "daemon", f"silent for {_age(age_s)}", "make up starts it; see its dagster.log.")
    if errors:
        return Finding(State.WARN, "daemon", "; ".join(errors), "See the daemon's page in the Dagster UI.")
    return ok("daemon", f"heartbeat {_age(age_s)} ago")


def champion() -> Finding:
    """The ledger is whole, and the champion's files are there at the sizes its manifest says."""
    from vlm_assets.release.ledger import Ledger

    opened = StoreResource().open()
    entry = Ledger(opened).champion()
    if entry is None:
        return Finding(State.ABSENT, "champion", "no model released yet")
    opened.directory(entry.artifact)
    return ok("champion", f"bundle {entry.bundle_version}, ledger entry {entry.number}, by {entry.action}")


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
