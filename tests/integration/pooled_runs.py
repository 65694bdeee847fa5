"""The code location of test_postgres_instance.py: a sensor asks for runs whose steps share the pool `compute`.

The first attempt of the run `killed` kills its own process, as a kernel out of memory would.
"""

import json
import os
import signal
import time
from pathlib import Path

import dagster as dg

NAMES = ("one", "two", "killed", "three")
STEP_S = 2.0
NAME = "name"  # the tag of a run


@dg.asset(pool="compute")
def pooled(context: dg.AssetExecutionContext) -> None:
    """Notes when it began and ended."""
    name, again = context.run.tags[NAME], context.run.tags.get("dagster/parent_run_id")
    spans = Path(os.environ["TEST_SPANS"])
    note = {"name": name, "run": context.run_id, "retry": again is not None, "began": time.time()}
    (spans / f"{context.run_id}.began").write_text(json.dumps(note))
    time.sleep(STEP_S)
    if name == "killed" and not again:
        (spans / f"{context.run_id}.json").write_text(json.dumps({**note, "ended": time.time()}))
        os.kill(os.getpid(), signal.SIGKILL)
    (spans / f"{context.run_id}.json").write_text(json.dumps({**note, "ended": time.time()}))


job = dg.define_asset_job("pooled_job", [pooled], executor_def=dg.in_process_executor)


@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=3600)
def all_at_once() -> dg.SensorResult:
    """Asks for all of them in one tick."""
    return dg.SensorResult([dg.RunRequest(run_key=name, tags={NAME: name}) for name in NAMES])


defs = dg.Definitions(assets=[pooled], jobs=[job], sensors=[all_at_once])
