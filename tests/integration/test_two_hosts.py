"""A Ray of two hosts: every stage runs across both; one is cut off and comes back. `make two-host-test`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.two_hosts import ADDRESSES, ISOLATED, ROOT, until
from vlm_assets.children import end_with_parent

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        subprocess.run([*ISOLATED, "ip", "netns", "list"], capture_output=True, check=False).returncode != 0,
        reason="needs the right to make network namespaces (root), and Debian's iproute2",
    ),
]
BOTH = sorted(ADDRESSES.values())
SLEEPER = """
import subprocess, sys, time
from pathlib import Path
from tests.two_hosts import make_hosts
_, b = make_hosts(Path(sys.argv[1]))
subprocess.run(b.command("sleep", sys.argv[2]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below /tmp itself: the paths of Ray's sockets end at 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="vlm-two-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_killed_hosts_leave_no_process_no_mount_and_no_namespace(folder: Path) -> None:
    seconds = str(time.time_ns())  # a name for the sleeper

    def sleepers() -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == ["sleep", seconds]]

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    hosts = subprocess.Popen([*ISOLATED, sys.executable, "-c", SLEEPER, str(folder), seconds], env=environment)
    until("the sleeper on host b", sleepers, 60)
    hosts.kill()
    hosts.wait()
    _, alive = psutil.wait_procs(sleepers(), 30)
    assert not alive
    assert str(folder) not in Path("/proc/mounts").read_text()
    namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    assert not {"a", "b"} & set(namespaces)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_host_is_cut_off_and_comes_back_while_both_work(folder: Path) -> None:
    environment = {
        **os.environ, "RAY_AUTH_MODE": "disabled", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0", "HOME": str(folder),
        "PYTHONPATH": str(ROOT), "DAGSTER_HOME": "",
    }  # fmt: skip
    with (folder / "output").open("w") as output:
        done = subprocess.run(
            [*ISOLATED, sys.executable, "-m", "tests.integration.two_hosts_driver", str(folder)],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=1150, check=False,
            preexec_fn=end_with_parent,
        )  # fmt: skip
    assert done.returncode == 0, (folder / "output").read_text()[-4000:]
    events = json.loads((folder / "events.json").read_text())
    print("\n" + json.dumps({name: seen for name, seen in events.items() if name != "summary"}, indent=1))
    assert sorted(events["nodes"]) == BOTH
    assert events["shards"]["equal"]
    assert sorted(events["shards"]["by_node"]) == BOTH
    assert events["replicas"] == {"Captioner": BOTH, "Ingress": BOTH}
    assert events["trainers"] == BOTH

    assert events["replicas_after"] == events["replicas"]
    for seen in events["requests"].values():
        assert seen["failed"] == {} and seen["asked"] > 10
    assert events["nodes_after"][ADDRESSES["a"]] == events["nodes"][ADDRESSES["a"]]
    assert events["nodes_after"][ADDRESSES["b"]] != events["nodes"][ADDRESSES["b"]]
    assert events["trainers_after"] == BOTH
    assert events["training_status"] == 0
    assert events["summary"]["resumed_from_step"] >= 10
    steps = [step for step, _ in events["summary"]["train_loss"]]
    assert steps == sorted(set(steps)) and steps[-1] == 200
