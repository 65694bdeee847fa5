"""Dagster's real output, as ECS lines on the disk, read by the real rsyslog and sent to a receiver of bulks."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import serving
from tests.monitoring_tools import ROOT, rsyslog_command, wait_for, write_rsyslog_configuration
from tests.unit.deploy.test_logging_files import FIELDS, INDEX
from vlm_assets.cli.settings import LOGS

pytestmark = pytest.mark.integration
SECRET = "wJalrXUtnFEMI-bPxRfiCYEXAMPLE"
REASON = f"asked by Bearer {SECRET}"


@contextmanager
def bulk_receiver() -> Iterator[tuple[int, list[tuple[dict[str, Any], dict[str, Any]]]]]:
    """Takes POST /_bulk as Elasticsearch does; yields its port and the (action, document) pairs that came."""
    received: list[tuple[dict[str, Any], dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            rows = [json.loads(row) for row in self.rfile.read(int(self.headers["content-length"])).splitlines() if row]
            pairs = list(zip(rows[::2], rows[1::2], strict=True))
            received.extend(pairs)
            self.answer({"errors": False, "items": [{"create": {"status": 201}} for _ in pairs]})

        def do_HEAD(self) -> None:  # rsyslog asks whether somebody is there
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            self.answer({"status": "green"})

        def answer(self, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as url:
        yield int(url.rsplit(":", 1)[1]), received


def run_dagster(home: Path) -> None:
    """A job that fails, its log as ECS lines into the home, as `make up` does it; a plain line beside them."""
    config = {"ops": {"roll_back_champion": {"config": {"reason": REASON}}}}
    (home / "config.json").write_text(json.dumps(config))
    job = ["-m", "dagster", "job", "execute", "-m", "vlm_assets.definitions", "-j", "rollback"]
    command = [
        sys.executable,
        "-m",
        "vlm_assets",
        "ecs",
        "dagster",
        sys.executable,
        *job,
        "-c",
        str(home / "config.json"),
    ]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT), "AWS_SECRET_ACCESS_KEY": SECRET}
    with (home / LOGS / "dagster.log").open("wb") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.PIPE, env=environment, cwd=ROOT, check=False)
    assert done.returncode == 1, done.stderr
    (home / LOGS / "other.log").write_text("a line that is no JSON\n")


def test_dagsters_lines_arrive_in_the_data_stream_without_secrets(tmp_path: Path) -> None:
    command, environment = rsyslog_command()
    home, work = tmp_path / "home", tmp_path / "work"
    (home / LOGS).mkdir(parents=True)
    work.mkdir()
    run_dagster(home)
    written = (home / LOGS / "dagster.log").read_text().splitlines()
    with bulk_receiver() as (port, received):
        file = write_rsyslog_configuration(home, work, port)
        daemon = subprocess.Popen([*command, "-n", "-f", str(file), "-i", str(work / "pid")], env=environment)
        try:
            wait_for("every line at the receiver", lambda: len(received) >= len(written), 60)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(20)
    assert sorted(json.dumps(document) for _, document in received) == sorted(map(json.dumps, map(json.loads, written)))
    actions = [action["create"] for action, _ in received]  # a data stream takes creations only
    assert {action["_index"] for action in actions} == {INDEX}
    assert len({action["_id"] for action in actions}) == len(written)
    names = {name for _, document in received for name in document}
    assert {name for name in names if not name.startswith("labels.")} <= set(FIELDS)
    (failed,) = [document for _, document in received if document.get("event.action") == "step-failure"]
    assert failed["error.type"].endswith("GateError")
    assert (failed["labels.job"], failed["labels.step"]) == ("rollback", "roll_back_champion")
    assert SECRET not in "".join(written)
