"""Children end with their parent, also under a caller that ignores SIGTERM and bequeaths that."""

import signal
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import signal, subprocess, sys, time
from vlm_assets.children import end_with_parent
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=end_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_child_ends_with_a_killed_parent_that_ignored_sigterm() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = Path("/proc") / parent.stdout.readline().strip()
    assert child.exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline_s = time.monotonic() + 10
    while child.exists() and "zombie" not in (child / "status").read_text() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not child.exists() or "zombie" in (child / "status").read_text()
