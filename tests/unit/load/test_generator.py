"""The load generator tells the truth: also of a server that stalls, refuses or breaks off."""

import asyncio
import io
import math
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from tests.load.generator import Load, Sample, best_rate, closed_load, highest_rate, open_load, percentile
from tests.load.http_client import Answer
from tests.load.pictures import jpegs

OK = Answer(200, {}, b"")


def load_of(p95_ms: float, refused: int = 0) -> Load:
    samples = [Sample(0, p95_ms / 1000, 200)] * 20 + [Sample(0, 0.001, 503)] * refused
    return Load(samples, 1, 0)


@pytest.mark.parametrize(("percent", "value"), [(50, 10), (95, 19), (99, 20), (100, 20)])
def test_percentiles_are_values_that_were_measured(percent: float, value: float) -> None:
    assert percentile(range(1, 21), percent) == value
    assert percentile([], percent) == math.inf


def test_a_stall_costs_every_request_that_was_due_meanwhile() -> None:
    """One stall of 0.3 s at 100 req/s: requests due in it waited, though each was answered at once when sent."""
    stalled = asyncio.Lock()

    async def send() -> Answer:
        first = not stalled.locked()
        async with stalled:
            await asyncio.sleep(0.3 if first else 0)
        return OK

    load = asyncio.run(open_load(send, 100, 0.4))
    late = [sample for sample in load.samples if sample.latency_ms > 100]
    assert len(load.samples) == 40
    assert 18 <= len(late) <= 40
    assert load.latency_ms(50) > 50


def test_open_load_keeps_its_rate_whatever_the_server_does() -> None:
    async def slow() -> Answer:
        await asyncio.sleep(0.2)
        return OK

    load = asyncio.run(open_load(slow, 50, 0.2))
    assert [round(sample.due_s, 6) for sample in load.samples] == [number / 50 for number in range(10)]


def test_closed_load_has_so_many_requests_at_a_time() -> None:
    now, most = 0, 0

    async def send() -> Answer:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await asyncio.sleep(0.005)
        now -= 1
        return OK

    asyncio.run(closed_load(send, 3, 0.05))
    assert most == 3


def test_refused_requests_count_neither_as_throughput_nor_as_latency() -> None:
    load = load_of(100, refused=5)
    assert (len(load.answered), load.statuses[503]) == (20, 5)
    assert load.latency_ms(50) == pytest.approx(100)
    assert "other statuses {503: 5}" in str(load)


@pytest.mark.parametrize("capacity", [12.0, 55.0, 90.0])
def test_bisection_finds_the_rate_at_which_p95_leaves_the_bound(capacity: float) -> None:
    async def measure(rate: float) -> Load:
        return load_of(50 if rate <= capacity else 500)

    tried = asyncio.run(highest_rate(measure, 100, p95_ms=100, steps=8))
    assert best_rate(tried) == pytest.approx(capacity, abs=1)


def test_a_rate_at_which_requests_are_refused_does_not_count() -> None:
    async def measure(rate: float) -> Load:
        return load_of(1, refused=1)

    assert best_rate(asyncio.run(highest_rate(measure, 100, p95_ms=100, steps=3))) == 0


def test_pictures_have_200_kb_and_differ_in_what_the_model_sees() -> None:
    pictures = list(islice(jpegs(), 40))
    assert all(190_000 < len(picture) < 215_000 for picture in pictures)
    seen = {np.asarray(Image.open(io.BytesIO(picture)).resize((96, 96))).tobytes() for picture in pictures}
    assert len(seen) == len(pictures)
