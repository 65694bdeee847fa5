"""Know and end every process that this one started, however deep, and nothing else."""

import contextlib
import ctypes
import os
import random
import socket
import sys
import time

import psutil

from vlm_serving.errors import PortInUseError

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
FREE_PORTS = range(20_000, 32_768)  # above Ray's workers (10002 to 19999), below Linux's own (32768 to 60999)


def claim_port(host: str, port: int, option: str) -> int:
    """`port` if it is free on `host`, or a free one for 0. Raises PortInUseError naming the command-line `option`."""
    if not port:
        return free_port(host)
    try:
        return _bindable(host, port)
    except OSError as error:
        raise PortInUseError(
            f"Cannot listen on {host}:{port} ({error.strerror}). Stop what uses the port (`ss -ltnp | grep :{port}`"
            f" names it), or choose another with {option} N; {option} 0 takes a free one."
        ) from error


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now. Nothing holds it until it is listened on.

    It is therefore taken from where the system takes none for connections and for whoever asks for any, such as the
    dozen processes of a Ray that starts meanwhile.
    """
    for port in random.sample(FREE_PORTS, 20):
        with contextlib.suppress(OSError):
            return _bindable(host, port)
    return _bindable(host, 0)


def _bindable(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return probe.getsockname()[1]


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent dies, so that `descendants` finds them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> list[psutil.Process]:
    """Living processes below this one; zombies are not counted."""
    return [one for one in psutil.Process().children(recursive=True) if _lives(one)]


def end_descendants(grace_s: float = 2.0) -> int:
    """Terminate, then kill, whatever is left below this process; returns how many there were at first."""
    first = descendants()
    for process in first:
        _signal(process, kill=False)
    deadline_s = time.monotonic() + grace_s
    while descendants() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    for _ in range(20):  # killing a parent may bring up children that it had just started
        left = descendants()
        if not left:
            break
        for process in left:
            _signal(process, kill=True)
        psutil.wait_procs(left, timeout=0.2)
    _reap()
    return len(first)


def _reap() -> None:
    """Collect the exit codes of adopted children, or they stay behind as zombies where init does not."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _signal(process: psutil.Process, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
