"""Traffic without a pause through a good update, an update that must fail, a rollback and killed replicas.

    python -m tests.load.continuous [--requests 10000] [--clients 4] [--replicas 2]

Prints what every stretch of the traffic met. A request has failed if its first answer is not a caption; how many of
those a client that asks again would have got is told beside it.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.load.bundles import random_bundle
from tests.load.http_client import LOST, Answer, Connections, wait_until_answers
from tests.load.pictures import jpegs
from tests.load.server import RunningServer, captioner_server, end_cleanly_on_sigterm
from vlm_serving.bundle import SEAL
from vlm_serving.errors import DeployFailedError

PATH, FIELD = "/v1/captions", "files"
RETRY_PAUSES_S = (0.1, 0.5, 2.0)
WORTH_A_RETRY = {LOST, 500, 502, 503, 504}
RECOVERY_S = 120.0
FEW = 10
CPUS = 16  # Ray counts them only: a replica more must never wait for one


@dataclass
class Stretch:
    """The traffic from one event to the next."""

    name: str
    first_answers: Counter[int] = field(default_factory=Counter[int])
    versions: Counter[str] = field(default_factory=Counter[str])
    failed_for_good: int = 0
    slowest_ms: float = 0.0
    said: str = ""  # by the first answer that was no caption

    @property
    def requests(self) -> int:
        return sum(self.first_answers.values())

    @property
    def failed(self) -> int:
        """Requests whose first answer was no caption."""
        return self.requests - self.first_answers[200]

    def __str__(self) -> str:
        others = {status: count for status, count in self.first_answers.items() if status != 200}
        return (
            f"{self.name:34} {self.requests:6} requests  {self.failed:4} failed, {self.failed_for_good:3} also when "
            f"asked again  slowest {self.slowest_ms:6.0f} ms  models {len(self.versions)}"
            + (f"\n    {others}, the first: {self.said}" if others else "")
        )


class Traffic:
    """So many clients that ask without a pause."""

    def __init__(self, url: str, pictures: Iterator[bytes]) -> None:
        self.url, self.pictures = url, pictures
        self.stretches: list[Stretch] = []
        self.stopping = False

    @property
    def requests(self) -> int:
        return sum(stretch.requests for stretch in self.stretches)

    def has_had(self, requests: float) -> bool:
        """Whether there were so many, and a few of them in the last stretch."""
        return self.requests >= requests and self.stretches[-1].requests >= FEW

    def begin(self, name: str) -> Stretch:
        """A new stretch: requests that are sent from now on belong to it."""
        self.stretches.append(Stretch(name))
        return self.stretches[-1]

    async def run(self, clients: int) -> None:
        """Ask until `stopping`."""
        async with Connections(self.url, 60) as connections:
            await asyncio.gather(*(self._client(connections) for _ in range(clients)))

    async def _client(self, connections: Connections) -> None:
        while not self.stopping:
            stretch, data, began_s = self.stretches[-1], next(self.pictures), time.perf_counter()
            answer = await connections.post_file(PATH, FIELD, data)
            stretch.first_answers[answer.status] += 1
            if answer.status != 200:
                stretch.said = stretch.said or answer.body[:200].decode(errors="replace")
                answer = await self._again(connections, data, answer)
                stretch.failed_for_good += answer.status != 200
            if answer.status == 200:
                stretch.versions[answer.headers.get("x-model-version", "")] += 1
            stretch.slowest_ms = max(stretch.slowest_ms, 1000 * (time.perf_counter() - began_s))

    async def _again(self, connections: Connections, data: bytes, answer: Answer) -> Answer:
        for pause_s in RETRY_PAUSES_S:
            if answer.status not in WORTH_A_RETRY:
                break
            await asyncio.sleep(float(answer.headers.get("retry-after", pause_s)))
            answer = await connections.post_file(PATH, FIELD, data)
        return answer


Event = tuple[str, Callable[[], object]]


async def through(traffic: Traffic, events: list[Event], requests: int, clients: int) -> list[Stretch]:
    """Run the events one after the other, evenly spread over `requests` requests; the traffic outlasts them all."""
    traffic.begin("before")
    clients_at_work = asyncio.create_task(traffic.run(clients))
    share = requests / (2 * len(events) + 1)
    try:
        for number, (name, event) in enumerate(events):
            await _until(lambda: traffic.has_had((2 * number + 1) * share), clients_at_work)  # noqa: B023
            traffic.begin(name)
            await asyncio.to_thread(event)
            traffic.begin(f"after {name}")
        await _until(lambda: traffic.has_had(requests), clients_at_work)
    finally:
        traffic.stopping = True
        await clients_at_work
    return traffic.stretches


async def _until(reached: Callable[[], bool], clients: "asyncio.Task[None]") -> None:
    while not reached() and not clients.done():
        await asyncio.sleep(0.05)


def events_on(server: RunningServer, old: Path, new: Path, bad: Path) -> list[Event]:
    """What happens to the server, in order. Each returns when it is over and raises if it went as it must not."""

    def refused() -> None:
        try:
            server.deploy(bad, version=read_version(bad))
        except DeployFailedError:
            return
        raise AssertionError(f"the altered bundle {bad} was deployed")

    kills = [(f"killed: {name}", lambda name=name: kill_one(server, name)) for name in server.replicas()]
    return [
        ("good update", lambda: server.deploy(new)),
        ("update that fails", refused),
        ("rollback", lambda: server.deploy(old)),
        *kills,
    ]


def kill_one(server: RunningServer, deployment: str) -> None:
    """SIGKILL a replica and wait until there are as many again that get traffic."""
    before = server.replicas()[deployment]
    killed = min(before)
    os.kill(before[killed], signal.SIGKILL)
    deadline_s = time.monotonic() + RECOVERY_S
    while len(now := server.replicas()[deployment]) < len(before) or killed in now:
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{deployment} had {len(now)} of {len(before)} replicas {RECOVERY_S:.0f} s later")
        time.sleep(0.2)


def replicated(replicas: int) -> dict[str, Any]:
    """So many replicas of the models, and of the ingress, which asks another if one dies with a picture in hand."""
    return {
        "split": True, "min_replicas": replicas, "max_replicas": replicas,
        "ingress_min_replicas": replicas, "ingress_max_replicas": replicas,
    }  # fmt: skip


def altered(bundle: Path) -> Path:
    """A sealed bundle, changed so that it no longer is what its seal says."""
    with (bundle / "tokenizer.json").open("a") as file:
        file.write(" ")
    return bundle


def read_version(bundle: Path) -> str:
    """What the seal says, whether it is true or not."""
    return json.loads((bundle / SEAL).read_text())["version"]


def run(
    place: Path, bundles: tuple[Path, Path, Path], requests: int, clients: int, options: Mapping[str, Any] | None = None
) -> list[Stretch]:
    """Start a server, run everything, end it. The third bundle is spoiled."""
    old, new, third = bundles
    with captioner_server(place / "server", CPUS) as server:
        server.deploy(old, options)
        pictures = jpegs()
        wait_until_answers(server.http_url, PATH, FIELD, next(pictures), 60)
        events = events_on(server, old, new, altered(third))
        return asyncio.run(through(Traffic(server.http_url, pictures), events, requests, clients))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--replicas", type=int, default=2)
    asked = parser.parse_args()
    end_cleanly_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="continuous-") as scratch:
        place = Path(scratch)
        old, new, third = (random_bundle(place / str(seed), "mini", seed=seed) for seed in range(3))
        stretches = run(place, (old, new, third), asked.requests, asked.clients, replicated(asked.replicas))
    print(*stretches, sep="\n")
    failed = sum(stretch.failed for stretch in stretches)
    for_good = sum(stretch.failed_for_good for stretch in stretches)
    total = sum(stretch.requests for stretch in stretches)
    print(f"{total} requests, {failed} failed, {for_good} of them also when asked again")
    print(f"goal: 0 failed: {'reached' if not failed else 'NOT reached'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
