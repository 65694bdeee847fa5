"""A real MLflow server on loopback for the time of a test: database, artifacts through it, nothing left afterwards."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from vlm_assets.children import end_with_parent
from vlm_serving.processes import free_port

HOST = "127.0.0.1"
START_TIMEOUT_S = 120


@contextmanager
def run_mlflow(directory: Path) -> Iterator[str]:
    """Start `mlflow server` with everything below `directory`; yields its address."""
    port = free_port()
    command = [
        *(sys.executable, "-W", "ignore", "-m", "mlflow", "server", "--host", HOST, "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{directory / 'server.db'}"),
        *("--artifacts-destination", str(directory / "artifacts")),
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (directory / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=directory, preexec_fn=end_with_parent
        )
    try:
        _wait(server, f"http://{HOST}:{port}", directory / "server.log")
        yield f"http://{HOST}:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            if httpx.get(f"{address}/health", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if server.poll() is not None:
            break
        time.sleep(0.2)
    raise AssertionError(f"no MLflow at {address}:\n{log.read_text()[-2000:]}")
