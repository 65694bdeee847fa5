"""Shards made by processes of this machine: progress in one line, errors as one error, no process outlives us.

A process makes one file at a time. Where there are few files, or one is much larger than the others, threads within the
processes keep all cores busy: decoding, resizing and encoding release Python's lock.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vlm_assets.children import end_with_parent
from vlm_assets.data.shard_files import ShardJob, make_shard
from vlm_assets.data.shard_plan import ShardTask
from vlm_assets.data.workers import available_cores
from vlm_assets.errors import SourceError
from vlm_serving.progress import Progress

FEW_PICTURES = 1000  # done sooner than processes are started
FEW_FILES = 8  # per worker: from here on the last file that one makes alone costs no more than an eighth of the time
MOST_THREADS = 4  # that Python's lock leaves busy in one process
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Crew:
    """Who makes the files."""

    processes: int
    threads: int  # in each

    def __str__(self) -> str:
        """As the log has it."""
        return (
            f"{self.processes} process{'es' * (self.processes > 1)} of {self.threads} thread{'s' * (self.threads > 1)}"
        )


def crew_for(wanted: int, pictures: int, files: int) -> Crew:
    """What is worth starting for `wanted` workers; 0 is one for each core that this process may use."""
    workers = wanted or available_cores()
    processes = 1 if pictures < FEW_PICTURES else max(1, min(workers, files))
    threads = min(workers, MOST_THREADS) if files < FEW_FILES * workers else 1
    return Crew(processes, threads)


def run_here(job: ShardJob, tasks: Iterable[ShardTask], progress: Progress) -> None:
    """Make the shards one after the other in this process."""
    for task in tasks:
        make_shard(job, task, progress.advance)


def run_in_processes(job: ShardJob, tasks: Iterable[ShardTask], workers: int, progress: Progress) -> None:
    """Make the shards in `workers` processes. The first error stops all; the shards that are finished stay."""
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of the libraries loaded here
    done, stop = context.Value("q", 0), context.Value("b", 0)
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(job, os.getpid(), done, stop))
    waiting = iter(tasks)
    running: set[Future[None]] = set()
    counted = 0
    try:
        while True:
            # few tasks in flight: each carries the captions of its pictures
            with _caller_hidden():
                running |= {pool.submit(_make, task) for task in islice(waiting, workers + 1 - len(running))}
            if not running:
                return
            finished, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
            for future in finished:
                future.result()
            now = done.value
            progress.advance(now - counted)
            counted = now
    except BrokenProcessPool as error:
        raise SourceError(
            f"A worker that made shards was killed, most likely for want of memory; {workers} ran. Set fewer workers "
            "for tokenized_shards and run it again: finished shards are kept."
        ) from error
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


@contextmanager
def _caller_hidden() -> Iterator[None]:
    """Workers need this package and not the caller's program, which `spawn` would import again in each: seconds."""
    main = sys.modules["__main__"].__dict__
    hidden = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


class _Stopped(Exception):
    """Somebody else failed; the others need not go on."""


_here: dict[str, Any] = {}  # what `_start` left for `_make`: a worker's only globals


def _start(job: ShardJob, parent: int, done: Any, stop: Any) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    if os.getppid() != parent:
        os._exit(1)  # it died while we started
    import pyarrow as pa

    pa.set_cpu_count(1)
    _here.update(job=job, report=_reporter(done, stop))


def _reporter(done: Any, stop: Any) -> Callable[[int], None]:
    def report(count: int) -> None:
        if stop.value:
            raise _Stopped
        with done.get_lock():
            done.value += count

    return report


def _make(task: ShardTask) -> None:
    make_shard(_here["job"], task, _here["report"])
