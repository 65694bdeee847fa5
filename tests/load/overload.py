"""Five times as much as the server can do: does it answer some in time and refuse the rest at once?

    python -m tests.load.overload [--factor 5] [--seconds 20] [--model mini] [--options JSON]

Capacity is what `--clients` clients get. Goals: with `--factor` times as many requests a second, p95 of the answered
ones within twice the p95 at capacity, every other one refused with 503 or 429 and a Retry-After, and quickly.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.load.bundles import random_bundle
from tests.load.generator import Load, closed_load, open_load, percentile
from tests.load.http_client import Connections, wait_until_answers
from tests.load.pictures import jpegs
from tests.load.server import captioner_server, end_cleanly_on_sigterm

PATH, FIELD = "/v1/captions", "files"
REFUSALS = (503, 429)
SLOWDOWN_GOAL = 2.0
WARM_UP_S = 3.0


@dataclass(frozen=True)
class Overload:
    """A server at its capacity and far beyond it."""

    capacity: Load
    beyond: Load
    offered_per_s: float

    @property
    def slowdown(self) -> float:
        """p95 of the answered requests, to that at capacity."""
        return self.beyond.latency_ms(95) / self.capacity.latency_ms(95)

    @property
    def refusal_ms(self) -> tuple[float, float]:
        """p50 and p95 of the time until a request was refused."""
        times = [one.latency_ms for one in self.beyond.samples if one.status in REFUSALS]
        return percentile(times, 50), percentile(times, 95)

    @property
    def without_advice(self) -> int:
        """Refusals that do not say when to try again."""
        return sum(one.status in REFUSALS and not one.retry_after for one in self.beyond.samples)

    @property
    def broken(self) -> int:
        """Requests that were neither answered nor refused."""
        return sum(one.status not in (200, *REFUSALS) for one in self.beyond.samples)

    def __str__(self) -> str:
        refused = sum(one.status in REFUSALS for one in self.beyond.samples)
        goal = "reached" if self.slowdown <= SLOWDOWN_GOAL else "NOT reached"
        return (
            f"at capacity      {self.capacity}\n{self.offered_per_s:.0f} req/s offered  {self.beyond}\n"
            f"p95 of the answered: {self.slowdown:.2f} x that at capacity (goal <= {SLOWDOWN_GOAL:g}: {goal})\n"
            f"refused: {refused}, p50 {self.refusal_ms[0]:.1f} ms, p95 {self.refusal_ms[1]:.1f} ms; "
            f"without Retry-After: {self.without_advice} (goal 0); neither answered nor refused: {self.broken} (goal 0)"
        )


async def overloaded(url: str, clients: int, factor: float, seconds: float) -> Overload:
    """Measure a server that is up: first its capacity, then `factor` times as much."""
    pictures = jpegs()
    async with Connections(url, 120) as connections:

        def send():
            return connections.post_file(PATH, FIELD, next(pictures))

        await closed_load(send, clients, WARM_UP_S)
        capacity = await closed_load(send, clients, seconds)
        offered = factor * capacity.requests_per_s
        return Overload(capacity, await open_load(send, offered, seconds), offered)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("mini", "base"), default="mini")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--factor", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--options", type=json.loads, help="settings of the server as JSON, see ServingConfig")
    asked = parser.parse_args()
    end_cleanly_on_sigterm()
    with (
        tempfile.TemporaryDirectory(prefix="overload-") as scratch,
        captioner_server(Path(scratch) / "server") as server,
    ):
        server.deploy(random_bundle(Path(scratch) / "bundle", asked.model), asked.options)
        wait_until_answers(server.http_url, PATH, FIELD, next(jpegs()), 60)
        result = asyncio.run(overloaded(server.http_url, asked.clients, asked.factor, asked.seconds))
    print(result)
    return 0 if result.slowdown <= SLOWDOWN_GOAL and not result.broken and not result.without_advice else 1


if __name__ == "__main__":
    sys.exit(main())
