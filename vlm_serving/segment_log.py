"""Rows as Parquet segments in a directory that many replicas may share, written off the hot path.

Whoever appends only puts rows into a bounded queue; a thread writes them. A segment is written under a temporary name
and renamed, so readers see whole ones. When the log outgrows its bound, the oldest segments go.
"""

import hashlib
import os
import queue
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlm_serving.telemetry import LOGGER, log_event

MAX_SEGMENT_ROWS = 4096
ROW_BYTES = 1000  # of a row of short fields in memory, at most
ABANDONED_S = 3600.0  # a segment still unfinished after that long has lost its writer


class Row(Protocol):
    """What every row has. `request_id` may have `/0`, `/1`, … behind the request's id."""

    @property
    def time_unix_s(self) -> float: ...
    @property
    def request_id(self) -> str: ...


R = TypeVar("R", bound=Row)


class SegmentLog(Generic[R]):
    """Append-only log of rows with the fields of `schema`. `append` never blocks and never raises.

    `share` of the requests are written, chosen by their ids: all rows of a request, or none. `dropped` counts the
    rows that were to be written and are lost.
    """

    prefix: ClassVar[str]  # of the segments' names
    schema: ClassVar[Any]

    def __init__(
        self,
        directory: Path,
        *,
        flush_s: float = 5.0,
        max_bytes: int = 1024**3,
        max_queued_rows: int = 20_000,
        max_queued_bytes: int = 64 * 1024**2,
        share: float = 1.0,
    ) -> None:
        self.directory = directory
        self.share = share
        self.dropped = 0
        self._counting = threading.Lock()
        self._max_queued_bytes = max_queued_bytes
        self._held_bytes = 0  # of rows queued or being written
        self._flush_s = flush_s
        self._max_bytes = max_bytes
        self._queue: queue.Queue[R | None] = queue.Queue(max_queued_rows)
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._sequence = 0
        self._thread = threading.Thread(target=self._run, name=f"{self.prefix}log", daemon=True)
        self._thread.start()

    def append(self, rows: Sequence[R]) -> None:
        """Queue rows for writing; what finds no room because the writer is behind is dropped."""
        for row in rows:
            if sampled(row.request_id, self.share) and not self._queued(row):
                self._count(1, 0)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued and stop the thread; waits at most `timeout_s`, twice that if the disk hangs."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=timeout_s)
            except queue.Full:  # the writer hangs; being a daemon, it ends with the process
                return
            self._thread.join(timeout_s)

    @staticmethod
    def row_bytes(row: Any) -> int:
        """About what a row takes in memory."""
        return ROW_BYTES

    def _queued(self, row: R) -> bool:
        size = self.row_bytes(row)
        if self._held_bytes + size > self._max_queued_bytes:
            return False
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            return False
        self._count(0, size)
        return True

    def _count(self, dropped: int, held_bytes: int) -> None:
        """Requests and the writer count from different threads."""
        with self._counting:
            self.dropped += dropped
            self._held_bytes += held_bytes

    def _run(self) -> None:
        while True:
            rows, last = self._collect()
            if rows:
                self._write(rows)
                self._count(0, -sum(map(self.row_bytes, rows)))
            if last:
                return

    def _collect(self) -> tuple[list[R], bool]:
        """Wait for a row, then gather more until the segment is full or the first has waited `flush_s`."""
        rows: list[R] = []
        deadline_s: float | None = None
        while len(rows) < MAX_SEGMENT_ROWS:
            wait_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            try:
                row = self._queue.get(timeout=wait_s)
            except queue.Empty:
                break
            if row is None:
                return rows, True
            deadline_s = deadline_s or time.monotonic() + self._flush_s
            rows.append(row)
        return rows, False

    def _write(self, rows: Sequence[R]) -> None:
        """Write one segment; a full or read-only disk costs rows, never a request."""
        newest_ms = int(1000 * max(row.time_unix_s for row in rows))
        self._sequence += 1
        final = self.directory / f"{self.prefix}{newest_ms:013d}-{self._name}-{self._sequence:06d}.parquet"
        hidden = final.with_name(f".{final.name}.tmp")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            pq.write_table(to_table(rows, self.schema), hidden, compression="zstd")
            hidden.rename(final)
            trim(self.directory, self.prefix, self._max_bytes)
        except OSError as error:
            self._lost(rows, hidden)
            log_event("request log not written", 40, rows=len(rows), directory=str(self.directory), error=str(error))
        except Exception:
            self._lost(rows, hidden)
            LOGGER.exception("request log not written")

    def _lost(self, rows: Sequence[R], hidden: Path) -> None:
        """Count the rows, and give back what half a segment takes of a disk that is full."""
        self._count(len(rows), 0)
        with suppress(OSError):
            hidden.unlink()


def sampled(request_id: str, share: float) -> bool:
    """Whether this request is among the `share` (0..1) that is written: the same answer in every replica, always."""
    if share >= 1:
        return True
    digest = hashlib.sha256(request_id.partition("/")[0].encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def to_table(rows: Sequence[Any], schema: Any) -> Any:
    """Rows as a pyarrow.Table of `schema`, whose names are their attributes."""
    return pa.table({name: [getattr(row, name) for row in rows] for name in schema.names}, schema=schema)


def trim(directory: Path, prefix: str, max_bytes: int) -> int:
    """Remove the oldest segments until the directory holds at most `max_bytes`; the newest stays. Returns how many.

    What writers that were killed left half done goes, too.
    """
    for path in directory.glob(f".{prefix}*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()
    segments = [(path, size) for path in segment_paths(directory, prefix) if (size := _size(path)) is not None]
    total = sum(size for _, size in segments)
    removed = 0
    for path, size in segments[:-1]:
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)  # another replica may have been faster
        total -= size
        removed += 1
    return removed


def segment_paths(directory: Path, prefix: str) -> list[Path]:
    """Complete segments, oldest first."""
    return sorted(directory.glob(f"{prefix}*.parquet"))


def read_segments(directory: Path, prefix: str, schema: Any, since_unix_s: float | None = None) -> Any:
    """A pyarrow.Table of all rows after `since_unix_s` (exclusive; None: all), oldest first; empty without a log.

    Segments whose newest row is not after it are skipped by name, unopened.
    """
    tables = [schema.empty_table()]
    for path in segment_paths(directory, prefix):
        newest_ms = int(path.name.removeprefix(prefix).split("-", 1)[0])
        if since_unix_s is None or newest_ms + 1 > 1000 * since_unix_s:
            try:
                tables.append(pq.read_table(path, schema=schema))
            except FileNotFoundError:  # trimmed by a writer since the listing
                continue
    table = pa.concat_tables(tables)
    if since_unix_s is not None:
        table = table.filter(pc.field("time_unix_s") > since_unix_s)
    return table.sort_by([("time_unix_s", "ascending"), ("request_id", "ascending")])


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
