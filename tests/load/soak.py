"""Does memory grow? A server at 80 % of its capacity for as long as asked, its memory watched.

    python -m tests.load.soak [--minutes 30] [--share 0.8] [--json FILE]

The slope is that of a straight line (least squares) through the memory of all the server's processes (`memory_mb`) in
the second half of the time: Ray's processes fill up for a quarter of an hour (its dashboard takes 18 MB at one stroke
after 13 minutes, and no more after that). Its 95 % interval takes into account that neighbouring measurements are
alike: it comes from the means of BLOCKS stretches.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.load.bundles import random_bundle
from tests.load.generator import Load, closed_load, open_load
from tests.load.http_client import Connections, wait_until_answers
from tests.load.pictures import jpegs
from tests.load.server import captioner_server, end_cleanly_on_sigterm, memory_mb

PATH, FIELD = "/v1/captions", "files"
CLIENTS, CAPACITY_S, EVERY_S = 16, 10.0, 2.0
SETTLING_SHARE, BLOCKS, T_95 = 0.5, 12, 2.228  # Student's t, 97.5 %, for BLOCKS - 2 degrees of freedom


@dataclass(frozen=True)
class Slope:
    """Growth with its 95 % interval, MB an hour."""

    mb_per_h: float
    low: float
    high: float

    @property
    def grows(self) -> bool:
        """Whether growth is beyond chance."""
        return self.low > 0

    def __str__(self) -> str:
        """As it is reported."""
        return f"{self.mb_per_h:+.1f} MB/h (95 % interval {self.low:+.1f} to {self.high:+.1f})"


def slope(times_s: Sequence[float], memory: Sequence[float]) -> Slope:
    """Least squares over the means of BLOCKS stretches of equal length; at least 2 * BLOCKS measurements."""
    if len(times_s) < 2 * BLOCKS:
        raise ValueError(f"{len(times_s)} measurements are too few for a slope; at least {2 * BLOCKS} are needed.")
    size = len(times_s) / BLOCKS
    cuts = [range(round(number * size), round((number + 1) * size)) for number in range(BLOCKS)]
    hours = [sum(times_s[index] for index in cut) / len(cut) / 3600 for cut in cuts]
    values = [sum(memory[index] for index in cut) / len(cut) for cut in cuts]
    middle, mean = sum(hours) / BLOCKS, sum(values) / BLOCKS
    spread = sum((hour - middle) ** 2 for hour in hours)
    value = sum((hour - middle) * (one - mean) for hour, one in zip(hours, values, strict=True)) / spread
    left = sum((one - mean - value * (hour - middle)) ** 2 for hour, one in zip(hours, values, strict=True))
    error = T_95 * math.sqrt(left / (BLOCKS - 2) / spread)
    return Slope(value, value - error, value + error)


@dataclass(frozen=True)
class Watched:
    """Memory of the server's processes, MB, and when it was taken, seconds."""

    times_s: list[float]
    processes: list[dict[str, float]]

    @property
    def memory(self) -> list[float]:
        """Of all processes together."""
        return [sum(one.values()) for one in self.processes]

    def growth(self) -> dict[str, float]:
        """MB an hour of each process that was there all the time, the fastest first."""
        always = set(self.processes[0]).intersection(*self.processes)
        found = {name: slope(self.times_s, [one[name] for one in self.processes]).mb_per_h for name in always}
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))


async def watch(pid: int, watched: Watched) -> None:
    """Take the memory of a process and all below it until cancelled."""
    began_s = time.monotonic()
    while True:
        memory = await asyncio.to_thread(memory_mb, pid)
        watched.times_s.append(time.monotonic() - began_s)
        watched.processes.append(memory)
        await asyncio.sleep(EVERY_S)


async def soak(url: str, pid: int, minutes: float, share: float) -> tuple[Load, Watched]:
    """Load a server that is up with `share` of its capacity."""
    pictures, watched = jpegs(), Watched([], [])
    async with Connections(url, 120) as connections:

        def send():
            return connections.post_file(PATH, FIELD, next(pictures))

        capacity = (await closed_load(send, CLIENTS, CAPACITY_S)).requests_per_s
        print(f"capacity {capacity:.1f} req/s; {minutes:g} min at {share:.0%} of it", flush=True)
        watcher = asyncio.create_task(watch(pid, watched))
        load = await open_load(send, share * capacity, 60 * minutes)
        watcher.cancel()
    return load, watched


def settled(watched: Watched) -> Watched:
    """The second half: in the first one caches fill."""
    first = int(SETTLING_SHARE * len(watched.times_s))
    return Watched(watched.times_s[first:], watched.processes[first:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--json", type=Path, help="every measurement")
    asked = parser.parse_args()
    end_cleanly_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, captioner_server(Path(folder) / "server") as server:
        server.deploy(random_bundle(Path(folder) / "bundle", "mini"))
        wait_until_answers(server.http_url, PATH, FIELD, next(jpegs()), 60)
        load, watched = asyncio.run(soak(server.http_url, server.process.pid, asked.minutes, asked.share))
    if asked.json:
        asked.json.write_text(json.dumps({"times_s": watched.times_s, "memory_mb": watched.processes}) + "\n")
    kept = settled(watched)
    growth = slope(kept.times_s, kept.memory)
    failed = len(load.samples) - len(load.answered)
    print(load)
    print(f"memory {kept.memory[0]:.0f} MB, at the end {kept.memory[-1]:.0f}; {growth}")
    print("; ".join(f"{name} {rate:+.1f} MB/h" for name, rate in list(kept.growth().items())[:6]))
    print(f"goal: no growth beyond chance: {'NOT reached' if growth.grows else 'reached'}; failed: {failed} (goal 0)")
    return 1 if growth.grows or failed else 0


if __name__ == "__main__":
    sys.exit(main())
