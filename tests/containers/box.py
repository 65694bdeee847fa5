"""The box of deploy/compose.yaml, started from a copy with secrets and ports of its own."""

import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vlm_serving.processes import free_port
from vlm_serving.security import key_line, new_key

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("CAPTIONS_PORT", "DAGSTER_PORT", "MLFLOW_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")


@dataclass(frozen=True)
class Box:
    """One compose project."""

    compose: Sequence[str]
    folder: Path
    project: str
    key: str
    ports: Mapping[str, int]

    def run(self, *arguments: str, timeout_s: float = 600, profiles: Sequence[str] = ("core",)) -> str:
        """A compose command; its output if it succeeds, else AssertionError with all it said."""
        chosen = [word for profile in profiles for word in ("--profile", profile)]
        command = [*self.compose, "-p", self.project, "-f", "compose.yaml", *chosen, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:] + self.logs()
        return done.stdout

    def state(self, action: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """`box.sh backup` or `restore`, whatever comes of it."""
        environment = {**os.environ, "COMPOSE": " ".join(self.compose), "COMPOSE_PROJECT_NAME": self.project}
        command = [self.folder / "box.sh", action, folder]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)

    def logs(self) -> str:
        """The end of every service's log, for the message of a failure."""
        command = [*self.compose, "-p", self.project, "--profile", "core", "logs", "--no-color", "--tail", "15"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False).stdout[-12000:]

    def address(self, port: str) -> str:
        """Of a published port, on loopback."""
        return f"http://127.0.0.1:{self.ports[port]}"

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask Dagster's web server."""
        body = {"query": query, "variables": variables}
        return httpx.post(f"{self.address('DAGSTER_PORT')}/graphql", json=body, timeout=120).json()["data"]


def make_box(folder: Path, compose: Sequence[str]) -> Box:
    """A copy of deploy/ with an .env made from its example, and one API key."""
    shutil.copytree(ROOT / "deploy", folder, ignore=shutil.ignore_patterns(".env", "secrets"))
    key, digest = new_key()
    ports = {name: free_port() for name in PORTS}
    text = (folder / ".env.example").read_text()
    for name, port in ports.items():
        text = re.sub(rf"^{name}=.*$", f"{name}={port}", text, flags=re.MULTILINE)
    text = text.replace("VLM_API_KEY=\n", f"VLM_API_KEY={key}\n").replace("VLM_PRESET=\n", "")
    text = re.sub(r"^(\w+)=$", lambda found: f"{found[1]}={secrets.token_hex(24)}", text, flags=re.MULTILINE)
    (folder / ".env").write_text(text)
    (folder / "secrets").mkdir()
    for name in ("api_keys", "metrics_key"):
        (folder / "secrets" / name).write_text(f"{key_line('dagster', digest)}\n" if name == "api_keys" else f"{key}\n")
    return Box(compose, folder, f"vlmcheck{folder.stat().st_ino}", key, ports)


def wait_for(ready: Any, what: str, timeout_s: float = 300) -> Any:
    """Poll until `ready` returns something; AssertionError with its last answer after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    seen: Any = None
    while time.monotonic() < deadline_s:
        try:
            seen = ready()
        except httpx.HTTPError as error:
            seen = None
            last = repr(error)
        else:
            last = json.dumps(seen, default=str)
        if seen:
            return seen
        time.sleep(3)
    raise AssertionError(f"{what}: not within {timeout_s} s; last: {last}")
