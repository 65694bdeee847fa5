"""Killed or interrupted at any stage: nothing half-written, and the next run goes on where the last one stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.integration.test_chain import CONFIG, ROOT, run, versions
from vlm_assets.contracts import ArtifactRef
from vlm_assets.store import MANIFEST, Store

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
            threading.Timer(delay_s, process.send_signal, [how]).start()
    return process.wait(120)


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
        code = run_and_stop(tmp_path, stage, SIGNALS[number % 2], 0.3)
        assert code != 0, f"the run was to be stopped in {stage}"
        if (tmp_path / "store").is_dir():
            whole_artifacts(tmp_path)
    finished = run(tmp_path, CONFIG)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    whole_artifacts(tmp_path)
    assert list((tmp_path / "store" / ".vlm" / "staging").iterdir()) == []
