"""One retraining per window, whenever the daemon is killed: the real daemon, SIGKILL at random moments."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.integration.daemons import daemon, settings
from vlm_assets.monitoring.retraining import FAILED, WINDOW_TAG

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
KILLS_PER_WINDOW = 6
LONGEST_LIFE_S = 25.0  # a tick, its run's launch and the next tick lie within it
PATIENCE_S = 420.0  # a run whose start was killed is given up by run monitoring after 180 s


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name, value in settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        yield instance


def report(instance: dg.DagsterInstance, window: str) -> None:
    values = {
        "verdict": "drifted", "p_value": 0.002, "effect_size": 1.7, "n_traffic": 120, "reference_version": "model",
        "window_id": window, "released_model_version": "release-1", "confirmed": True, "windows_in_a_row": 1,
    }  # fmt: skip
    instance.report_runless_asset_event(dg.AssetMaterialization("drift_report", metadata=values))


def retrainings(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(job_name="retrain")))


def test_one_retraining_per_window_whenever_the_daemon_is_killed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    moments = random.Random(6)
    for window in ("one", "two"):
        report(instance, window)
        for _ in range(KILLS_PER_WINDOW):
            with daemon(tmp_path):
                time.sleep(moments.uniform(2, LONGEST_LIFE_S))
        with daemon(tmp_path) as process:
            deadline_s = time.monotonic() + PATIENCE_S
            while not any(run.tags[WINDOW_TAG] == f"model-{window}" for run in retrainings(instance)):
                assert process.poll() is None, (tmp_path / "daemon.log").read_text()[-2000:]
                assert time.monotonic() < deadline_s, f"no retraining for window {window}"
                time.sleep(1)
            time.sleep(10)  # further ticks
    runs = retrainings(instance)
    # a run whose process died with the daemon may be asked for again under the next attempt; a key never twice
    keys = Counter(run.tags["dagster/run_key"] for run in runs)
    assert set(keys.values()) == {1}, keys
    alive = Counter(run.tags[WINDOW_TAG] for run in runs if run.status not in FAILED)
    assert alive == {"model-one": 1, "model-two": 1}
