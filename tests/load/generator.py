"""Load: closed (so many clients, each waits for its answer) and open (so many requests a second, come what may).

Open load counts latency from the moment at which a request was due, not from when it was sent: a server that stalls
does not get its own slowness left out of the figures (coordinated omission, Gil Tene).
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.load.http_client import Answer

Send = Callable[[], Awaitable[Answer]]


@dataclass(frozen=True)
class Sample:
    """One request. Times in seconds since the load began."""

    due_s: float
    done_s: float
    status: int
    retry_after: str = ""

    @property
    def latency_ms(self) -> float:
        """From when it was due until its answer was there."""
        return 1000 * (self.done_s - self.due_s)


@dataclass(frozen=True)
class Load:
    """What a server made of a load. Latencies are those of answered requests (status 200)."""

    samples: Sequence[Sample]
    seconds: float  # from the first request until the last was due
    generator_cpu: float  # CPU seconds that the generator took, per second

    @property
    def answered(self) -> list[Sample]:
        """The requests that got their caption."""
        return [sample for sample in self.samples if sample.status == 200]

    @property
    def statuses(self) -> Counter[int]:
        """How often each status came back."""
        return Counter(sample.status for sample in self.samples)

    @property
    def requests_per_s(self) -> float:
        """Captions per second until the last answer."""
        last_s = max((sample.done_s for sample in self.answered), default=math.inf)
        return len(self.answered) / last_s

    def latency_ms(self, percent: float) -> float:
        """A percentile over the answered requests; infinite if there are none."""
        return percentile([sample.latency_ms for sample in self.answered], percent)

    def __str__(self) -> str:
        """Rate and percentiles, on one line."""
        others = {status: count for status, count in self.statuses.items() if status != 200}
        return (
            f"{self.requests_per_s:7.2f} req/s  p50 {self.latency_ms(50):8.1f}  p95 {self.latency_ms(95):8.1f}  "
            f"p99 {self.latency_ms(99):8.1f} ms  n {len(self.answered)}  generator {self.generator_cpu:.0%} of a core"
            + (f"  other statuses {others}" if others else "")
        )


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.inf


async def closed_load(send: Send, clients: int, seconds: float) -> Load:
    """`clients` requests at a time until `seconds` are over."""
    clock, samples = Clock(), list[Sample]()

    async def client() -> None:
        while (sent_s := clock.now_s()) < seconds:
            await _sampled(send, sent_s, clock, samples)

    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(samples, seconds, clock.cpu())


async def open_load(send: Send, requests_per_s: float, seconds: float) -> Load:
    """A request every 1 / `requests_per_s` s, whether or not those before are answered; waits for all answers."""
    clock, samples = Clock(), list[Sample]()
    async with asyncio.TaskGroup() as tasks:
        for number in range(max(1, round(requests_per_s * seconds))):
            due_s = number / requests_per_s
            await asyncio.sleep(max(0.0, due_s - clock.now_s()))
            tasks.create_task(_sampled(send, due_s, clock, samples))
    return Load(samples, seconds, clock.cpu())


class Clock:
    """Seconds, and CPU seconds of this process, since it was made."""

    def __init__(self) -> None:
        self._started_s, self._cpu_s = time.perf_counter(), time.process_time()

    def now_s(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._started_s

    def cpu(self) -> float:
        """CPU seconds per second since the beginning."""
        return (time.process_time() - self._cpu_s) / max(self.now_s(), 1e-9)


async def _sampled(send: Send, due_s: float, clock: Clock, samples: list[Sample]) -> None:
    answer = await send()
    samples.append(Sample(due_s, clock.now_s(), answer.status, answer.headers.get("retry-after", "")))


@dataclass(frozen=True)
class Tried:
    """A rate that was tried and what came of it."""

    rate: float
    load: Load
    passed: bool


async def highest_rate(
    measure: Callable[[float], Awaitable[Load]], ceiling: float, p95_ms: float, steps: int
) -> list[Tried]:
    """Bisect between 0 and `ceiling` for the highest rate whose p95 stays within `p95_ms`, nothing being refused."""
    low, high, tried = 0.0, ceiling, list[Tried]()
    rate = 0.75 * ceiling
    for _ in range(steps):
        load = await measure(rate)
        passed = len(load.answered) == len(load.samples) and load.latency_ms(95) <= p95_ms
        tried.append(Tried(rate, load, passed))
        low, high = (rate, high) if passed else (low, rate)
        rate = (low + high) / 2
    return tried


def best_rate(tried: Sequence[Tried]) -> float:
    """The highest rate that passed; 0 if none did."""
    return max((one.rate for one in tried if one.passed), default=0.0)
