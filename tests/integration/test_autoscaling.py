"""A model without a replica wakes a GPU node by Ray's real autoscaler, and gives it back when nobody asks any more."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny import tiny_bundle
from vlm_serving.bundle import open_bundle

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
ISOLATED = ["unshare", "--pid", "--fork", "--mount-proc", "--net", "--kill-child"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below /tmp itself: the paths of Ray's sockets end at 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="vlm-auto-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.skipif(
    subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs the right to make namespaces (root)",
)
def test_a_gpu_is_held_only_while_somebody_asks(folder: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    driver = f'ip link set lo up && exec "{sys.executable}" -m tests.integration.autoscaling_driver "$0" "$1"'
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    with (folder / "output").open("w") as output:
        done = subprocess.run(
            [*ISOLATED, "bash", "-c", driver, str(bundle), str(folder)],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=280, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (folder / "output").read_text()[-3000:]
    events = json.loads((folder / "events.json").read_text())
    print(f"\nGPU node there after {events['awake_s']:.0f} s, given back after {events['asleep_s']:.0f} s")
    version = open_bundle(bundle).version
    assert (events["gpu_nodes_at_first"], events["alive_at_first"]) == (0, 200)
    assert (events["status"], events["body"]["model"]["version"]) == (200, version)
    assert events["ready_asleep"]["ready"] is True
    assert events["models"]["models"] == [{"name": "captioner", "version": version}]
    assert events["gpu_nodes_at_last"] == 0
