"""Hostile pictures through the HTTP application: each is captioned or refused, and memory stays bounded."""

import asyncio
import base64
import gc
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import httpx
import psutil
import pytest

from tests.hostile import hostile_pictures
from tests.serving import make_service, noisy_jpeg
from vlm_serving.heap import HeapTrimmer
from vlm_serving.service import CaptionService
from vlm_serving.web import create_web

AT_ONCE = 8
SAMPLE_EVERY = 250
WARM_SHARE = 0.4  # of the requests, until the heap has its size
MEBIBYTE = 2**20
GROWTH_LIMIT = 32  # MiB: what is in work at a sample, and ends of arenas; it is 5 to 10
REFUSALS = {400, 413, 415}


def request_of(data: bytes, number: int) -> httpx.Request:
    """The picture in one of the three ways in, by turns."""
    address = "http://captioner/v1/captions"
    if number % 3 == 0:
        return httpx.Request("POST", address, content=data, headers={"content-type": "image/jpeg"})
    if number % 3 == 1:
        return httpx.Request("POST", address, files=[("files", ("picture", data))])
    return httpx.Request("POST", address, json={"images": [{"base64": base64.b64encode(data).decode()}]})


async def send_all(service: CaptionService, pictures: Iterator[bytes]) -> tuple[Counter[int], list[float]]:
    """Answers by status, and the process's memory in MiB as it went; a good picture among them is always captioned."""
    transport = httpx.ASGITransport(create_web(lambda: service), raise_app_exceptions=False)
    statuses: Counter[int] = Counter()
    memory: list[float] = []
    good, numbers, process, trimmer = noisy_jpeg(), count(), psutil.Process(), HeapTrimmer(period_s=0)
    async with httpx.AsyncClient(transport=transport) as client:
        for round_ in count():
            group = list(islice(pictures, AT_ONCE))
            if not group:
                break
            requests = [request_of(data, next(numbers)) for data in (*group, good)]
            *answers, known = await asyncio.gather(*map(client.send, requests))
            assert known.status_code == 200
            for answer, data in zip(answers, group, strict=True):
                assert answer.status_code in {200, *REFUSALS}, (answer.text, data[:200])
                statuses[answer.status_code] += 1
            if round_ % (SAMPLE_EVERY // AT_ONCE) == 0:
                gc.collect()
                trimmer.trim_if_due()  # gaps in the heap come and go with large pictures; what lives must not grow
                memory.append(process.memory_info().rss / MEBIBYTE)
    return statuses, memory


def test_hostile_pictures_are_captioned_or_refused(bundle: Path) -> None:
    statuses, _ = asyncio.run(send_all(make_service(bundle), hostile_pictures(300)))
    assert statuses.total() == 300
    assert all(statuses[status] >= 5 for status in (200, *REFUSALS)), statuses  # it is not one refusal for all


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_hostile_pictures_take_no_more_memory_than_some(bundle: Path) -> None:
    started_s = time.monotonic()
    statuses, memory = asyncio.run(send_all(make_service(bundle), hostile_pictures(10_000, seed=1)))
    settled = memory[int(WARM_SHARE * len(memory)) :]
    half = len(settled) // 2
    growth = statistics.median(settled[half:]) - statistics.median(settled[:half])  # pictures in work do not count
    print(
        f"{dict(sorted(statuses.items()))} in {time.monotonic() - started_s:.0f} s; memory in MiB: {memory[0]:.0f} at"
    )
    print(f"first, {settled[0]:.0f} settled, {memory[-1]:.0f} at last, {max(memory):.0f} at most; growth {growth:+.1f}")
    assert statuses.total() == 10_000
    assert growth < GROWTH_LIMIT, "MiB, from pictures 4,000-7,000 to 7,000-10,000"
