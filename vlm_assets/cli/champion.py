"""The champion on the command line: put it on the standing Ray Serve, change it, list who it was."""

import os
from typing import Any

from vlm_assets.cli.settings import open_home
from vlm_assets.errors import ConfigError
from vlm_assets.release.deploy import deploy_champion


def deploy() -> int:
    """Deploy the champion named by the ledger to VLM_SERVE_ADDRESS and say what came of it."""
    if not os.environ.get("VLM_SERVE_ADDRESS"):
        raise ConfigError("VLM_SERVE_ADDRESS is not set: it names the Ray dashboard of the Ray Serve to deploy to.")
    deployed = deploy_champion()
    print("the champion is deployed" if deployed else "no model released yet: `make demo`, or materialize the assets")
    return 0


def promote(version: str, reason: str) -> int:
    """Run the job `promote` here; it stands in Dagster's list of runs like any other."""
    return _run("promote", "promote_version", {"version": version, "reason": reason})


def rollback(version: str, reason: str) -> int:
    """Run the job `rollback` here; version "" is the previous champion."""
    return _run("rollback", "roll_back_champion", {"version": version, "reason": reason})


def ledger() -> int:
    """Print every change of champion, the newest first."""
    from vlm_assets.release.ledger import Ledger
    from vlm_assets.release.show import ledger_table
    from vlm_assets.resources import StoreResource

    entries = Ledger(StoreResource().open()).entries()
    for row in ledger_table(entries, rows=len(entries)):
        print(
            f"{row['entry']:>4}  {row['when']}  {row['action']:<8}  {row['from']} -> {row['to']}  CIDEr {row['CIDEr']}"
        )
        print(f"      {row['why']} ({row['who']}, run {row['run'] or '–'})")
    if not entries:
        print("no model released yet: `make demo`, or materialize the assets")
    return 0


def _run(job: str, op: str, config: dict[str, Any]) -> int:
    import dagster as dg

    from vlm_assets.cli.bootstrap import prepare_instance
    from vlm_assets.cli.chain import ChainError, first_failure
    from vlm_assets.definitions import defs

    prepare_instance(open_home(os.environ))
    settings = {"ops": {op: {"config": config}}, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def(job).execute_in_process(
            instance=instance, run_config=settings, raise_on_error=False
        )
    if not result.success:
        error = first_failure(result)[1]
        text = error.message if error is not None else "no message"
        raise ChainError(f"{job} failed: {' '.join(text.split(': ', 1)[-1].split())}")
    print("done:")
    return ledger()
