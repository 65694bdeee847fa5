"""Dynamic batching by backlog: while the model is at one batch, pictures gather, and the next pass takes them all.

`ray.serve.batch` closes a batch when `batch_wait_timeout_s` is over even if the model is still busy, so that under load
batches of one queue up behind it. This one fills them; what that gave is in docs/serving.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Makes a function of one item out of a function of a batch. All calls at a time come from one event loop."""

    def __init__(
        self, run_batch: Callable[[list[T]], Awaitable[list[R]]], max_batch_size: int, batch_wait_timeout_s: float
    ) -> None:
        self._run_batch = run_batch
        self._max_batch_size = max_batch_size
        self._wait_s = batch_wait_timeout_s
        self._waiting: list[tuple[T, asyncio.Future[R], float]] = []
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Put an item into the next batch and wait for its result; an error of the batch is raised to all of it."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future, time.monotonic()))
        if len(self._waiting) >= self._max_batch_size:
            self._full.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        """Run batches until nobody waits."""
        while self._waiting:
            await self._fill()
            batch = self._waiting[: self._max_batch_size]
            del self._waiting[: self._max_batch_size]
            batch = [(item, future) for item, future, _ in batch if not future.done()]  # a caller may have left
            if batch:
                await self._run(batch)

    async def _fill(self) -> None:
        """Wait for a full batch, but no longer than until the first item has waited `batch_wait_timeout_s`."""
        left_s = self._wait_s - (time.monotonic() - self._waiting[0][2])
        if len(self._waiting) >= self._max_batch_size or left_s <= 0:
            return
        self._full = asyncio.Event()
        try:
            async with asyncio.timeout(left_s):
                await self._full.wait()
        except TimeoutError:
            return

    async def _run(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run_batch([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
