"""What a Dagster instance needs before its first run."""

import os
import shutil
from pathlib import Path

from vlm_assets.cli.services import PROJECT
from vlm_assets.dead_runs import end_dead_runs

POOL = "compute"


def prepare_instance(home: Path) -> None:
    """Make `home` this process's Dagster instance, with the project's dagster.yaml and the limit of the pool `compute`.

    The limit is set here and not left to `default_limit`: in a fresh database the first two runs would still overlap.
    Runs that were killed give back their place in the pool.
    """
    import dagster as dg

    os.environ["DAGSTER_HOME"] = str(home)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(PROJECT / "dagster_home" / "dagster.yaml", home / "dagster.yaml")
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        end_dead_runs(instance)
