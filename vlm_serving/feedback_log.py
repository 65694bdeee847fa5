"""What people say a caption should have been, as JSON lines beside the request log. Kept before it is answered for.

Corrections are few and cost someone's time: each is on the disk (fsync) when `append` returns, and none is ever removed
to make room. Replicas write files of their own into one directory; saying the same twice is one row for whoever reads.
"""

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from vlm_serving.errors import FeedbackFullError, FeedbackNotKeptError

PREFIX = "feedback-"
PART_BYTES = 1024**2
MAX_KNOWN = 4096  # rows remembered by a writer, so that a caller's repetitions do not fill the log


@dataclass(frozen=True)
class FeedbackRow:
    """One correction. `caption_id` is the `request_id` of a row of the request log, if the caller named it rightly."""

    time_unix_s: float
    caption_id: str
    caption: str
    rating: int | None = None  # of the caption that was corrected, 1 worst to 5 best
    reason: str = ""
    key_name: str = ""  # which API key sent it, if keys are in use

    @property
    def feedback_id(self) -> str:
        """The same for the same correction of the same caption, whoever sends it and when: 32 hex digits."""
        return hashlib.sha256(f"{self.caption_id}\n{self.caption}".encode()).hexdigest()[:32]


class FeedbackLog:
    """Append-only log in a directory that many replicas may share. `append` waits for the disk: call it in a thread."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._part: Path | None = None
        self._known: dict[str, None] = {}  # in the order of arrival

    def append(self, row: FeedbackRow) -> bool:
        """Write a row to the disk; False if this writer has it already. FeedbackFullError, FeedbackNotKeptError."""
        with self._lock:
            if row.feedback_id in self._known:
                return False
            try:
                self._write(f"{json.dumps(asdict(row), ensure_ascii=False)}\n".encode())
            except OSError as error:
                self._part = None  # half a line may stand there: go on in another file
                raise FeedbackNotKeptError(
                    f"The correction could not be written ({error.strerror}). Send it again later."
                ) from error
            self._known[row.feedback_id] = None
            if len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]
            return True

    def _write(self, line: bytes) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        used = sum(path.stat().st_size for path in part_paths(self.directory))
        if used + len(line) > self._max_bytes:
            raise FeedbackFullError(
                f"The log of corrections holds {used:,} bytes; the limit is {self._max_bytes:,}. Its operator must "
                "move files away or raise feedback_log_max_bytes."
            )
        if self._part is None or self._part.stat().st_size + len(line) > PART_BYTES:
            name = f"{PREFIX}{int(1000 * time.time()):013d}-{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl"
            self._part = self.directory / name
        new = not self._part.exists()
        with self._part.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync_directory(self.directory)


def part_paths(directory: Path) -> list[Path]:
    """The files of a log, oldest first."""
    return sorted(directory.glob(f"{PREFIX}*.jsonl"))


def read_feedback(directory: Path | str, since_unix_s: float | None = None) -> list[FeedbackRow]:
    """All corrections after `since_unix_s` (exclusive; None: all), oldest first, each once; none without a log."""
    rows = [row for path in part_paths(Path(directory)) for row in _rows(path)]
    rows.sort(key=lambda row: (row.time_unix_s, row.feedback_id))
    first = {row.feedback_id: row for row in reversed(rows)}  # the earliest of its kind comes last, and stays
    kept = sorted(first.values(), key=lambda row: (row.time_unix_s, row.feedback_id))
    return [row for row in kept if since_unix_s is None or row.time_unix_s > since_unix_s]


def _rows(path: Path) -> Iterator[FeedbackRow]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):  # else its writer died in the middle, and never said that it was kept
            yield FeedbackRow(**json.loads(line))


def _sync_directory(directory: Path) -> None:
    """Make a new file's name as durable as its content."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
