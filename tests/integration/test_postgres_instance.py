"""Dagster on a real PostgreSQL, with the deployment's instance file: queue, pool, and a run worker that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.integration.pooled_runs import NAME, NAMES
from tests.postgres import Postgres, binaries, run_postgres
from vlm_assets.children import end_with_parent

pytest.importorskip("dagster_postgres", reason="needs the extra `postgres`")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(binaries() is None, reason="needs Debian's package postgresql"),
]
ROOT = Path(__file__).parents[2]
LIMIT_S = 300


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with run_postgres() as server:
        yield server


@pytest.fixture
def instance(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of the deployment; only the daemon's waits are shorter."""
    settings = yaml.safe_load((ROOT / "deploy" / "docker" / "dagster.yaml").read_text())
    settings["run_monitoring"] |= {"poll_interval_seconds": 1, "free_slots_after_run_end_seconds": 1}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "spans").mkdir()
    for name, value in postgres.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("TEST_SPANS", str(tmp_path / "spans"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def daemon(instance: dg.DagsterInstance, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-W", "ignore", "-m", "dagster._daemon", "run", "-m", "tests.integration.pooled_runs"]
    with (tmp_path / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, preexec_fn=end_with_parent, start_new_session=True,
            env=dict(os.environ),
        )  # fmt: skip
    yield daemon
    daemon.send_signal(signal.SIGINT)
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def watch(instance: dg.DagsterInstance, log: Path) -> list[tuple[int, int]]:
    """Until each name has a run that succeeded: (runs in the queue, runs under way) as they were seen."""
    seen: list[tuple[int, int]] = []
    deadline_s = time.monotonic() + LIMIT_S
    under_way = {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED}
    while time.monotonic() < deadline_s:
        runs = instance.get_runs()
        statuses = [run.status for run in runs]
        seen.append((statuses.count(dg.DagsterRunStatus.QUEUED), sum(one in under_way for one in statuses)))
        if {run.tags[NAME] for run in runs if run.status is dg.DagsterRunStatus.SUCCESS} == set(NAMES):
            return seen
        time.sleep(0.5)
    raise TimeoutError(f"{[(run.tags[NAME], run.status) for run in instance.get_runs()]}\n{log.read_text()[-3000:]}")


@pytest.mark.usefixtures("daemon")
def test_runs_queue_share_the_pool_one_by_one_and_a_killed_one_is_tried_again(
    instance: dg.DagsterInstance, postgres: Postgres, tmp_path: Path
) -> None:
    seen = watch(instance, tmp_path / "daemon.log")
    assert max(queued for queued, _ in seen) >= 1  # they waited
    assert max(under_way for _, under_way in seen) == 2  # max_concurrent_runs

    spans: list[dict[str, Any]] = [json.loads(file.read_text()) for file in (tmp_path / "spans").glob("*.json")]
    spans.sort(key=lambda span: span["began"])
    assert sorted(span["name"] for span in spans) == sorted([*NAMES, "killed"])
    for one, following in pairwise(spans):
        assert one["ended"] <= following["began"], (one, following)  # the pool `compute` holds one step

    first, second = (span for span in spans if span["name"] == "killed")
    assert (first["retry"], second["retry"]) == (False, True)
    dead, retried = (instance.get_run_by_id(span["run"]) for span in (first, second))
    assert dead is not None and dead.status is dg.DagsterRunStatus.FAILURE
    assert retried is not None and retried.parent_run_id == dead.run_id
    told = [entry.dagster_event.message or "" for entry in instance.all_logs(dead.run_id) if entry.dagster_event]
    assert any("SIGKILL" in text for text in told), told
    assert not instance.event_log_storage.get_concurrency_info("compute").claimed_slots

    rows = postgres.query("SELECT status, count(*) FROM runs GROUP BY status")
    assert dict(rows) == {"SUCCESS": len(NAMES), "FAILURE": 1}  # and nowhere else
    assert not list(tmp_path.glob("**/*.db"))
