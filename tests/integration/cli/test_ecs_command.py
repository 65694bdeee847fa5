"""`python -m vlm_assets ecs`: the program's output, exit code and signals pass through it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.monitoring_tools import ROOT

pytestmark = pytest.mark.integration
WAITS = """
import signal, sys, time
def stop(*_):
    print("stopping", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""


def start(*command: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DB_PASSWORD": "correct-horse"}
    return subprocess.Popen(
        [sys.executable, "-m", "vlm_assets", "ecs", "mine", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def test_a_line_comes_at_once_and_sigterm_reaches_the_program() -> None:
    process = start(sys.executable, "-c", WAITS)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())  # while the program still runs
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=20)
    assert (first["message"], first["service.name"]) == ("ready", "mine")
    assert [json.loads(line)["message"] for line in rest.splitlines()] == ["stopping"]
    assert process.returncode == 3, errors


def test_a_killed_program_gives_the_shells_exit_code() -> None:
    process = start("sh", "-c", "echo the password is correct-horse; kill -9 $$")
    output, _ = process.communicate(timeout=20)
    assert json.loads(output)["message"] == "the password is <redacted>"
    assert process.returncode == 128 + signal.SIGKILL


def test_what_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    process = start(str(tmp_path / "nothing"))
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (2, "")
    assert errors == f"error: {tmp_path / 'nothing'} cannot be started: No such file or directory.\n"
