"""The captioner as users start it (`python -m vlm_serving serve`), for as long as a test or a measurement lasts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from vlm_serving.bundle import open_bundle
from vlm_serving.deploying import APPLICATION, REST_PATH, auth_headers, deploy

START_S, STOP_S = 180, 40
MB = 1e6


@dataclass(frozen=True)
class RunningServer:
    """A server and where it answers."""

    process: "subprocess.Popen[bytes]"
    http_url: str
    dashboard_url: str
    output: Path

    def deploy(self, bundle: Path, options: Mapping[str, Any] | None = None, version: str = "") -> str:
        """Put a bundle on it and wait until it serves; returns the version. Raises DeployFailedError."""
        version = version or open_bundle(bundle).version
        deploy(self.dashboard_url, bundle, version, options=options, timeout_s=START_S)
        return version

    def processes(self) -> list[psutil.Process]:
        """The server and all below it."""
        return process_tree(self.process.pid)

    def replicas(self) -> dict[str, dict[str, int]]:
        """Process ids of the replicas that get traffic, by id, of each deployment, as Serve tells."""
        answer = httpx.get(self.dashboard_url + REST_PATH, headers=auth_headers(), timeout=30, trust_env=False)
        deployments = answer.raise_for_status().json()["applications"][APPLICATION]["deployments"]
        return {
            name: {one["replica_id"]: one["pid"] for one in deployment["replicas"] if one["state"] == "RUNNING"}
            for name, deployment in deployments.items()
        }


@contextmanager
def captioner_server(folder: Path, num_cpus: int | None = None) -> Iterator[RunningServer]:
    """A server without a model yet, on free ports. It and all its processes are gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    address_file, output = folder / "address.json", folder / "output"
    command = [sys.executable, "-m", "vlm_serving", "serve", "--port", "0", "--dashboard-port", "0",
               "--address-file", str(address_file), "--request-log", str(folder / "log"),
               "--num-cpus", str(num_cpus or os.cpu_count())]  # fmt: skip
    with output.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=own_environment())
    before = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        address = _wait_for(address_file, process, output)
        os.environ["RAY_AUTH_TOKEN_PATH"] = address["auth_token_file"]
        yield RunningServer(process, address["http_url"], address["dashboard_url"], output)
    finally:
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
        if before is not None:
            os.environ["RAY_AUTH_TOKEN_PATH"] = before
        stop(process)


def own_environment(**more: str) -> dict[str, str]:
    """This environment, with this checkout's packages first."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path for path in paths if path)), **more}


def end_cleanly_on_sigterm() -> None:
    """Make SIGTERM unwind this process like an error: it must not leave its servers behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end; what it and its children do not manage in time is killed."""
    family = process_tree(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _, alive = psutil.wait_procs(family, timeout=3)
    for one in alive:
        one.kill()


def process_tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty if it is gone."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and all below it that live."""
    total = 0.0
    for one in process_tree(pid):
        try:
            times = one.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def memory_mb(pid: int) -> dict[str, float]:
    """Memory of a process and all below it that no file could give back, by process, shared pages counted once.

    Pss_Anon and Pss_Shmem (proc_pid_smaps(5)). Not the code of libraries: of that each user in the whole system is
    counted a share, so it grows when a stranger ends.
    """
    found: dict[str, float] = {}
    for one in process_tree(pid):
        try:
            kinds = dict(
                line.split()[:2] for line in Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()[1:]
            )
            name = one.name().partition(".")[0]  # Ray adds the method that is running
            found[f"{name} {one.pid}"] = (int(kinds["Pss_Anon:"]) + int(kinds["Pss_Shmem:"])) * 1024 / MB
        except (psutil.Error, OSError):
            continue
    return found


def _wait_for(address_file: Path, process: "subprocess.Popen[bytes]", output: Path) -> dict[str, str]:
    deadline_s = time.monotonic() + START_S
    while not address_file.is_file():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"The server did not start:\n{output.read_text(errors='replace')}")
        time.sleep(0.1)
    return json.loads(address_file.read_text())
