"""Killed or interrupted at any stage: nothing half-written, and the next run goes on where the last one stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.test_chain import CONFIG, ROOT, run, versions
from vlm_assets.contracts import ArtifactRef
from vlm_assets.manifest import MANIFEST
from vlm_assets.store import Store

pytestmark = pytest.mark.integration

STAGES = [
    "raw_dataset",
    "validated_splits",
    "base_model",
    "tokenized_shards",
    "finetuned_model",
    "eval_report",
    "serving_app",
]
SIGNALS = [signal.SIGKILL, signal.SIGINT]


AGAIN_S = 5.0


def press(process: subprocess.Popen[str], how: signal.Signals, delay_s: float) -> None:
    """Send the signal after `delay_s`, and again as long as the process runs.

    Dagster turns SIGINT into an exception in whatever the main thread does just then; raised in code that swallows
    every exception (a callback from C, a destructor) it is lost, and a person presses Ctrl-C once more.
    """
    time.sleep(delay_s)
    while process.poll() is None:
        process.send_signal(how)
        time.sleep(AGAIN_S)


def run_and_stop(home: Path, stage: str, how: signal.Signals, delay_s: float) -> int:
    """Materialize everything; `delay_s` after `stage` has begun, send the signal. Returns the exit code."""
    file = home / "config.yaml"
    file.write_text(json.dumps(CONFIG))
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "*"]
    command += ["-m", "vlm_assets.definitions", "-c", str(file)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLM_")}
    environment |= {"DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, cwd=ROOT,
                               env=environment, start_new_session=True)  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if f'Started execution of step "{stage}"' in line:
            threading.Thread(target=press, args=(process, how, delay_s), daemon=True).start()
    return process.wait(120)


def servers_of(home: Path, patience_s: float = 30.0) -> list[int]:
    """Serving processes on a bundle of this home that are still there after a while."""
    deadline_s = time.monotonic() + patience_s
    while True:
        found = [process.pid for process in psutil.process_iter(["cmdline"]) if _serves(process, home)]
        if not found or time.monotonic() > deadline_s:
            return found
        time.sleep(0.5)


def _serves(process: psutil.Process, home: Path) -> bool:
    command = process.info["cmdline"] or []
    return "vlm_serving" in command and any(str(home) in part for part in command)


def whole_artifacts(home: Path) -> None:
    """Every artifact directory has its manifest and all files of it, byte for byte."""
    store = Store(home / "store")
    for name, found in versions(home).items():
        for version in found:
            data = store.backend.read_manifest(name, version)
            assert data is not None, f"{name} {version} has no {MANIFEST}"
            store.verify(ArtifactRef(name, version, "", hashlib.sha256(data).hexdigest()))


def test_stopped_at_every_stage_and_run_again(tmp_path: Path) -> None:
    for number, stage in enumerate(STAGES):
        delay_s = 6.0 if stage == "serving_app" else 0.3  # its server must be up and about to be orphaned
        code = run_and_stop(tmp_path, stage, SIGNALS[number % 2], delay_s)
        assert code != 0, f"the run was to be stopped in {stage}"
        if (tmp_path / "store").is_dir():
            whole_artifacts(tmp_path)
    assert servers_of(tmp_path) == [], "a server outlived the run that started it"
    finished = run(tmp_path, CONFIG)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    whole_artifacts(tmp_path)
    assert list((tmp_path / "store" / ".vlm" / "staging").iterdir()) == []
