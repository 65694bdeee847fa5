"""Prometheus, Alertmanager and rsyslog for tests: where they are, a webhook that keeps what it gets, queries."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.http_server import serving

ROOT = Path(__file__).resolve().parents[1]
UNPACKED = ROOT / ".monitoring" / "usr"


def program(name: str) -> str:
    """Path of a program that tools/install_monitoring.sh unpacks or the system has; skips the test without it."""
    found = shutil.which(name, path=f"{UNPACKED / 'bin'}{os.pathsep}{UNPACKED / 'sbin'}") or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: run tools/install_monitoring.sh (make test does; it wants Debian's apt)")
    return found


@dataclass
class Webhook:
    """A receiver on loopback and the JSON bodies that it was sent."""

    url: str
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def alerts(self, name: str) -> list[dict[str, Any]]:
        return [one for body in self.bodies for one in body["alerts"] if one["labels"]["alertname"] == name]


@contextmanager
def webhook() -> Iterator[Webhook]:
    received = Webhook("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        received.url = f"{url}/alerts"
        yield received


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """An instant query's samples."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, trust_env=False, timeout=20)
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    return answer.json()["data"]["result"]


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    """The first true value of `condition`; fails with `what` and the last value after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"{what} did not come within {timeout_s:.0f} s; last seen: {value}"
        time.sleep(0.3)
    return value


def rsyslog_command() -> tuple[list[str], dict[str, str]]:
    """rsyslogd with its modules and libraries, unpacked or the system's; its environment."""
    daemon = program("rsyslogd")
    folders = [UNPACKED / "lib" / one for one in ("x86_64-linux-gnu", "aarch64-linux-gnu")]
    libraries = next((one for one in folders if (one / "rsyslog").is_dir()), None)
    if libraries is None or not daemon.startswith(str(UNPACKED)):
        return [daemon], dict(os.environ)
    return [daemon, "-M", str(libraries / "rsyslog")], {**os.environ, "LD_LIBRARY_PATH": str(libraries)}


def write_rsyslog_configuration(home: Path, work: Path, port: int) -> Path:
    """deploy/logging/rsyslog.conf with this home, working folder and port of the receiver; a copy in `work`."""
    text = (ROOT / "deploy" / "logging" / "rsyslog.conf").read_text()
    file = work / "rsyslog.conf"
    file.write_text(text.replace("VLM_HOME", str(home)).replace('"WORK"', f'"{work}"').replace('"9200"', f'"{port}"'))
    return file
