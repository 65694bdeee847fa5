"""What a benchmark measures: figures with their spread, printed as they come and kept as JSON after every part.

Measurements run in processes of their own. A figure that was measured several times is told by its median.
"""

import json
import multiprocessing
import os
import resource
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

MB = 1e6


@dataclass(frozen=True)
class Figure:
    """One line of the table. The goal is a bound from below, from above, or both; None where there is none."""

    name: str
    values: tuple[float, ...]  # one for each repeat
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    detail: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def goal(self) -> str:
        """The bounds, as text."""
        bounds = [f"{sign} {bound:g}" for sign, bound in ((">=", self.at_least), ("<=", self.at_most)) if bound]
        return " and ".join(bounds)

    @property
    def reached(self) -> str:
        """Whether the median keeps the bounds; "" without any."""
        if not self.goal:
            return ""
        low = self.at_least is None or self.value >= self.at_least
        return "yes" if low and (self.at_most is None or self.value <= self.at_most) else "NO"

    def __str__(self) -> str:
        """The line of the table."""
        spread = f"{min(self.values):,.2f}-{max(self.values):,.2f}" if len(self.values) > 1 else ""
        value = f"{self.value:10,.2f} {spread:>13} {self.unit:14}"
        return f"{self.name:62} {value} {self.goal:>16} {self.reached:3}  {self.detail}"

    def to_json(self) -> dict[str, Any]:
        """With what is reckoned from the values."""
        return {**asdict(self), "median": self.value, "goal": self.goal, "reached": self.reached}


@dataclass
class Report:
    """Figures as they come: each is printed, and all so far are in the file after every part."""

    path: Path
    about: dict[str, Any]
    figures: list[Figure] = field(default_factory=list[Figure])

    def part(self, figures: Iterable[Figure]) -> None:
        """Take the figures of one part."""
        for figure in figures:
            self.figures.append(figure)
            print(figure, flush=True)
        document = {**self.about, "load_after": os.getloadavg()[0], "figures": [one.to_json() for one in self.figures]}
        self.path.write_text(json.dumps(document, indent=1) + "\n")


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work` in a fresh process: its memory and its caches are its own."""
    receiver, sender = multiprocessing.Pipe(False)
    process = multiprocessing.get_context("spawn").Process(target=_send, args=(sender, partial(work, *arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _send(sender: Any, work: Callable[[], Any]) -> None:
    sender.send(work())


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds that `work` takes in this process and in the children that end meanwhile."""
    started_s = _cpu_now()
    work()
    return _cpu_now() - started_s


def wall_seconds(work: Callable[[], object]) -> float:
    """Seconds on the clock."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def peak_mb(work: Callable[[], object]) -> float:
    """Peak memory of this process and its children together while `work` runs; shared pages count once (PSS)."""
    peak, over, me = [0.0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not over.wait(0.05):
            total = 0.0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss / MB
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    return peak[0]


def _cpu_now() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
