"""A killed run gives back its place in the pool; a living one keeps it."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import dagster as dg
import pytest

from vlm_assets.dead_runs import end_dead_runs
from vlm_assets.resources import TrackerResource

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]

POOLED_RUN = textwrap.dedent("""
    import time, dagster as dg

    @dg.asset(pool="compute")
    def slow():
        print("running", flush=True)
        time.sleep(60)

    job = dg.Definitions(assets=[slow], jobs=[dg.define_asset_job("j", "*")]).resolve_job_def("j")
    with dg.DagsterInstance.get() as instance:
        job.execute_in_process(instance=instance)
""")


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster_home" / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("compute", 1)
        yield instance


def claimed(instance: dg.DagsterInstance) -> int:
    return len(instance.event_log_storage.get_concurrency_info("compute").claimed_slots)


def test_a_killed_run_is_ended_and_a_living_one_is_left_alone(instance: dg.DagsterInstance):
    process = subprocess.Popen(
        [sys.executable, "-c", POOLED_RUN], env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    assert end_dead_runs(instance) == []
    assert claimed(instance) == 1

    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    (run,) = instance.get_runs()
    assert end_dead_runs(instance) == [run.run_id]
    assert claimed(instance) == 0
    assert instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.CANCELED
    assert end_dead_runs(instance) == []


TRACKED_RUN = textwrap.dedent("""
    import sys, time, dagster as dg
    from vlm_assets.resources import TrackerResource

    @dg.asset
    def slow(context: dg.AssetExecutionContext, tracker: TrackerResource):
        with tracker.run(context, "training"):
            print("running", flush=True)
            time.sleep(120)

    defs = dg.Definitions(
        assets=[slow], jobs=[dg.define_asset_job("j", "*")], resources={"tracker": TrackerResource(uri=sys.argv[1])}
    )
    with dg.DagsterInstance.get() as instance:
        defs.resolve_job_def("j").execute_in_process(instance=instance)
""")


def test_the_mlflow_run_of_a_killed_run_is_ended_and_that_of_a_living_one_is_left_alone(
    instance: dg.DagsterInstance, tmp_path: Path
):
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TRACKED_RUN, uri],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"

    @dg.asset
    def quick(context: dg.AssetExecutionContext, tracker: TrackerResource) -> None:
        with tracker.run(context, "training"):
            pass

    def statuses() -> list[str]:
        """Of all MLflow runs, after another one has begun and ended."""
        assert dg.materialize([quick], instance=instance, resources={"tracker": TrackerResource(uri=uri)}).success
        return sorted(run.info.status for run in mlflow.MlflowClient(uri).search_runs(["1"]))

    assert statuses() == ["FINISHED", "RUNNING"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(end_dead_runs(instance)) == 1
    assert statuses() == ["FINISHED", "FINISHED", "KILLED"]
