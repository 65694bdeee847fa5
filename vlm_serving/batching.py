"""Dynamic batching by backlog: while the model is at one batch, pictures gather, and the next pass takes them all.

`ray.serve.batch` closes a batch when `batch_wait_timeout_s` is over even if the model is still busy, so that under load
batches of one queue up behind it. This one fills them; what that gave is in docs/serving.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Waiting(Generic[T, R]):
    """An item, where its result goes, and since when it waits."""

    item: T
    future: asyncio.Future[R]
    since_s: float  # time.monotonic()


class Batcher(Generic[T, R]):
    """Makes a function of one item out of a function of a batch. All calls at a time come from one event loop.

    `on_depth` hears how many items wait, each time that this changes.
    """

    def __init__(
        self,
        run_batch: Callable[[list[T]], Awaitable[list[R]]],
        max_batch_size: int,
        batch_wait_timeout_s: float,
        on_depth: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._run_batch = run_batch
        self._max_batch_size = max_batch_size
        self._wait_s = batch_wait_timeout_s
        self._on_depth = on_depth
        self._waiting: list[Waiting[T, R]] = []
        self._full = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """Put an item into the next batch and wait for its result; an error of the batch is raised to all of it."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        entry = Waiting(item, future, time.monotonic())
        self._waiting.append(entry)
        self._on_depth(len(self._waiting))
        if len(self._waiting) >= self._max_batch_size:
            self._full.set()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await future
        except asyncio.CancelledError:  # the caller has left, or its time is over: its place is for others
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._on_depth(len(self._waiting))
            raise

    async def _work(self) -> None:
        """Run batches until nobody waits."""
        while self._waiting:
            await self._fill()
            batch = [one for one in self._waiting[: self._max_batch_size] if not one.future.done()]
            del self._waiting[: self._max_batch_size]
            self._on_depth(len(self._waiting))
            if batch:
                await self._run(batch)

    async def _fill(self) -> None:
        """Wait for a full batch, but no longer than until the first item has waited `batch_wait_timeout_s`."""
        left_s = self._wait_s - (time.monotonic() - self._waiting[0].since_s)
        if len(self._waiting) >= self._max_batch_size or left_s <= 0:
            return
        self._full = asyncio.Event()
        try:
            async with asyncio.timeout(left_s):
                await self._full.wait()
        except TimeoutError:
            return

    async def _run(self, batch: list["Waiting[T, R]"]) -> None:
        try:
            results = await self._run_batch([one.item for one in batch])
            for one, result in zip(batch, results, strict=True):
                if not one.future.done():
                    one.future.set_result(result)
        except Exception as error:
            for one in batch:
                if not one.future.done():
                    one.future.set_exception(error)
