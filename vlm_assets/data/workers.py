"""The same work for many items on all cores, results in the items' order.

Threads, not processes: decoding, hashing and resizing pictures release Python's lock, and nothing has to be copied.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # items per worker that may wait: enough to keep all busy, little enough to stream


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, work(item)) in the order of `items`, whatever the number of workers (None: one per core).

    At most `AHEAD` items per worker are in memory. What `work` or `items` raises comes out here.
    """
    workers = workers or available_cores()
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= AHEAD * workers:
                    oldest, result = waiting.popleft()
                    yield oldest, result.result()
            while waiting:
                oldest, result = waiting.popleft()
                yield oldest, result.result()
        finally:
            for _, result in waiting:
                result.cancel()
