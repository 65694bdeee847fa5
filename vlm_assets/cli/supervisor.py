"""Child processes that start, live and stop together.

Each child leads a process group of its own, writes to a log file, and gets SIGTERM if this process dies, however it
dies. Only processes started here are ever signalled.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil

from vlm_assets.children import end_with_parent
from vlm_assets.errors import DeployError

POLL_S = 0.2
GRACE_S = 25.0  # Ray Serve drains its replicas before it goes
LOG_TAIL_LINES = 20


@dataclass(frozen=True)
class Service:
    """How to start one child and how to tell that it is ready. `ready` must not block for long."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    ready: Callable[[], bool]
    start_timeout_s: float = 120.0


@dataclass
class Supervisor:
    """Starts services, says which one died and why, stops all of them. Leaving it as a context stops all."""

    grace_s: float = GRACE_S
    _running: list[tuple[Service, "subprocess.Popen[bytes]"]] = field(default_factory=list, init=False)

    def start(self, service: Service) -> None:
        """Start a child in the background."""
        service.log.parent.mkdir(parents=True, exist_ok=True)
        with service.log.open("wb") as log:
            child = subprocess.Popen(
                service.command,
                env=dict(service.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal reaches only us; we then stop the children in order
                preexec_fn=end_with_parent,
            )
        self._running.append((service, child))

    def wait_ready(self, services: Iterable[Service]) -> None:
        """Block until all are ready. Raises DeployError if one dies or takes longer than its `start_timeout_s`."""
        started_s = time.monotonic()
        waiting = list(services)
        while waiting:
            self.check()
            waiting = [service for service in waiting if not service.ready()]
            for service in waiting:
                if time.monotonic() - started_s > service.start_timeout_s:
                    raise DeployError(
                        f"{service.name} was not ready after {service.start_timeout_s:.0f} s; "
                        f"the end of {service.log}:\n{tail(service.log)}"
                    )
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise DeployError with the log's end if a child has stopped."""
        for service, child in self._running:
            if child.poll() is not None:
                raise DeployError(
                    f"{service.name} stopped {_how(child.returncode)}; the end of {service.log}:\n{tail(service.log)}"
                )

    def watch(self) -> None:
        """Block as long as all children live; then `check` raises."""
        while True:
            self.check()
            time.sleep(POLL_S)

    def stop(self) -> None:
        """SIGTERM to all, newest first; what is left of them after `grace_s`, or at a second Ctrl-C, is killed."""
        families = [_family(child.pid) for _, child in self._running]
        for _, child in reversed(self._running):
            if child.poll() is None:
                child.terminate()
        try:
            self._wait_all(time.monotonic() + self.grace_s)
        except KeyboardInterrupt:
            print("killing what is left", file=sys.stderr)
        finally:
            for family in families:
                _kill(family)
            for _, child in self._running:
                _kill_group(child.pid)
                child.wait()
            self._running.clear()

    def _wait_all(self, deadline_s: float) -> None:
        for _, child in self._running:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline_s - time.monotonic()))

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, each set off by a bar."""
    text = log.read_text(errors="replace") if log.is_file() else ""
    return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:]) or "  | (empty)"


def heed_signals() -> None:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt here, and be at their defaults in children.

    A shell without job control starts background commands with SIGINT ignored, and children inherit that: Dagster would
    then ignore SIGTERM too. A signal with a handler is reset to its default in a child, an ignored one is not.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _family(pid: int) -> list[psutil.Process]:
    """A child and its descendants now. psutil knows their start times, so a recycled pid is never taken for them."""
    try:
        process = psutil.Process(pid)
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def _kill(family: Iterable[psutil.Process]) -> None:
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _kill_group(leader: int) -> None:
    """Kill what a child that died by itself left in its process group."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
