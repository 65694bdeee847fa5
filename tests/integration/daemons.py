"""A real Dagster daemon over `tests.integration.loop_location`, in a home with the deployment's own settings."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_assets.children import end_with_parent

ROOT = Path(__file__).parents[2]
LOCATION = "tests.integration.loop_location"


def settings(home: Path) -> dict[str, str]:
    """Environment of a home whose sensors look every second and never rest; writes its dagster.yaml."""
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", home / "dagster.yaml")
    return {
        "DAGSTER_HOME": str(home),
        "VLM_SENSOR_TICK_S": "1",
        "VLM_RETRAIN_COOLDOWN_S": "0",
        "VLM_RETRAIN_MAX_PER_WEEK": "100",
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def daemon(home: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The daemon in a group of its own; killed with all of it, code server and runs that are being launched."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", LOCATION]
    with (home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
