"""Batches: filled by what gathers while the model is busy, bounded, in order, and safe from callers that leave."""

import asyncio
import time

import pytest

from vlm_serving.batching import Batcher


class Model:
    """Doubles numbers, as slowly as told; remembers its batches."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[list[int]] = []

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await asyncio.sleep(self.seconds)
        if 13 in items:
            raise ValueError("unlucky")
        return [2 * item for item in items]


def test_what_comes_while_the_model_is_busy_goes_together() -> None:
    async def scene(model: Model) -> list[int]:
        batcher = Batcher(model, 8, 0.0)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.02)
        rest = [asyncio.create_task(batcher.submit(number)) for number in range(1, 6)]
        return [await first, *[await one for one in rest]]

    model = Model(0.1)
    assert asyncio.run(scene(model)) == [0, 2, 4, 6, 8, 10]
    assert model.batches == [[0], [1, 2, 3, 4, 5]]


def test_a_full_batch_does_not_wait_and_none_is_larger() -> None:
    async def scene(model: Model) -> list[int]:
        batcher = Batcher(model, 4, 30.0)
        return await asyncio.gather(*(batcher.submit(number) for number in range(8)))

    model = Model()
    started_s = time.monotonic()
    assert asyncio.run(scene(model)) == [2 * number for number in range(8)]
    assert model.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert time.monotonic() - started_s < 5


def test_a_lonely_item_waits_no_longer_than_told() -> None:
    model = Model()
    started_s = time.monotonic()
    assert asyncio.run(Batcher(model, 4, 0.05).submit(21)) == 42
    assert 0.04 < time.monotonic() - started_s < 2


def test_an_error_reaches_all_of_its_batch_and_nobody_else() -> None:
    async def scene() -> None:
        batcher = Batcher(Model(), 2, 0.0)
        bad = [asyncio.create_task(batcher.submit(number)) for number in (13, 1)]
        good = [asyncio.create_task(batcher.submit(number)) for number in (2, 3)]
        for task in bad:
            with pytest.raises(ValueError, match="unlucky"):
                await task
        assert [await task for task in good] == [4, 6]

    asyncio.run(scene())


def test_a_caller_that_leaves_takes_its_item_along() -> None:
    async def scene(model: Model) -> None:
        batcher = Batcher(model, 8, 0.0)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.02)
        leaving, staying = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await first, await staying) == (0, 4)

    model = Model(0.1)
    asyncio.run(scene(model))
    assert model.batches == [[0], [2]]
