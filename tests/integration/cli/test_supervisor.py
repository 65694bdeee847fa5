"""Real children: they start together, stop together, and leave nothing behind, however the parent ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from vlm_assets.cli.supervisor import Service, Supervisor, tail
from vlm_assets.errors import DeployError

pytestmark = pytest.mark.integration

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT_OF_ONE = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(child.pid, flush=True); time.sleep(60)"
)


def service(tmp_path: Path, code: str, name: str = "Sleeper", timeout_s: float = 20) -> Service:
    log = tmp_path / f"{name}.log"
    return Service(name, [sys.executable, "-c", code], os.environ, log, lambda: bool(log.read_text()), timeout_s)


def eventually(condition: Callable[[], bool], timeout_s: float = 15) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.05)
    return False


def pids(supervisor: Supervisor) -> list[int]:
    return [child.pid for _, child in supervisor._running]


def test_ready_then_stopped_by_term(tmp_path):
    sleeper = service(tmp_path, SLEEPER)
    with Supervisor(grace_s=20) as supervisor:
        supervisor.start(sleeper)
        supervisor.wait_ready([sleeper])
        (pid,) = pids(supervisor)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 10  # TERM sufficed
    assert not psutil.pid_exists(pid)


def test_what_ignores_term_is_killed_after_the_grace(tmp_path):
    stubborn = service(tmp_path, STUBBORN)
    with Supervisor(grace_s=0.5) as supervisor:
        supervisor.start(stubborn)
        supervisor.wait_ready([stubborn])
        (pid,) = pids(supervisor)
    assert not psutil.pid_exists(pid)


def test_grandchildren_go_too(tmp_path):
    parent = service(tmp_path, PARENT_OF_ONE)
    with Supervisor(grace_s=5) as supervisor:
        supervisor.start(parent)
        supervisor.wait_ready([parent])
        grandchild = int(parent.log.read_text())
        assert psutil.pid_exists(grandchild)
    assert eventually(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie")


def test_a_child_that_dies_is_named_with_the_end_of_its_log(tmp_path):
    dying = service(tmp_path, "print('no space left'); raise SystemExit(3)", name="MLflow")
    with (
        pytest.raises(DeployError, match=r"(?s)^MLflow stopped with exit code 3; the end of .*\n  \| no space left$"),
        Supervisor() as supervisor,
    ):
        supervisor.start(dying)
        supervisor.watch()


def test_a_child_that_never_gets_ready(tmp_path):
    silent = service(tmp_path, "import time; time.sleep(60)", name="Ray Serve", timeout_s=0.5)
    with (
        pytest.raises(DeployError, match=r"^Ray Serve was not ready after 0 s; the end of"),
        Supervisor() as supervisor,
    ):
        supervisor.start(silent)
        supervisor.wait_ready([silent])


def test_children_end_when_the_supervising_process_is_killed(tmp_path):
    code = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from vlm_assets.cli.supervisor import Service, Supervisor
        log = Path({str(tmp_path)!r}) / "child.log"
        child = Service("child", [sys.executable, "-c", {SLEEPER!r}], os.environ, log, lambda: bool(log.read_text()))
        supervisor = Supervisor()
        supervisor.start(child)
        supervisor.wait_ready([child])
        print(supervisor._running[0][1].pid, flush=True)
        supervisor.watch()
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert eventually(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie")


def test_children_of_a_background_shell_command_still_heed_ctrl_c(tmp_path):
    """A shell without job control ignores SIGINT for `command &`; Dagster copies that to SIGTERM: nothing stops it."""
    code = textwrap.dedent("""
        import os, signal, subprocess, sys
        from vlm_assets.cli.supervisor import heed_signals
        heed_signals()
        show = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
        subprocess.run([sys.executable, "-c", show], check=True)
    """)
    script = tmp_path / "script.py"
    script.write_text(code)
    run = f"{sys.executable} {script} & wait"
    assert subprocess.run(["sh", "-c", run], capture_output=True, text=True, check=True).stdout == "True\n"


def test_the_tail_of_a_log(tmp_path):
    log = tmp_path / "log"
    assert tail(log) == "  | (empty)"
    log.write_text("a\nb\nc\n")
    assert tail(log, 2) == "  | b\n  | c"
