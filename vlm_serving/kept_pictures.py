"""The pictures that corrections are about, as uploaded. Written off the hot path, bounded, only if asked for.

Nobody knows beforehand which caption will be corrected: pictures wait in `recent`, the oldest go; a correction links
its picture into `kept`, from where nothing is removed. Replicas share the directory. A caption's id names its picture.
"""

import os
import queue
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from vlm_serving.telemetry import log_event

SUFFIX = ".picture"
MAX_QUEUED_BYTES = 64 * 1024**2
TRIM_SHARE = 0.05  # of max_bytes written by this replica between two looks at what all of them wrote


class KeptPictures:
    """`recent` and `kept`, each at most about `max_bytes`. `append` never blocks and never raises."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory, self._max_bytes = directory, max_bytes
        self.dropped = 0  # pictures that found no room in the queue, or that the disk refused
        self._queue: queue.Queue[tuple[str, bytes] | None] = queue.Queue()
        self._lock = threading.Lock()
        self._queued_bytes = self._unseen_bytes = 0
        self._thread = threading.Thread(target=self._run, name="kept-pictures", daemon=True)
        self._thread.start()

    def append(self, caption_id: str, data: bytes) -> None:
        """Queue a picture for writing; it is dropped if the writer is behind."""
        with self._lock:
            if self._queued_bytes + len(data) > MAX_QUEUED_BYTES:
                self.dropped += 1
                return
            self._queued_bytes += len(data)
        self._queue.put_nowait((caption_id, data))

    def keep(self, caption_id: str) -> bool:
        """Keep the picture of a corrected caption; False if it is gone, or `kept` is full. Waits for the disk."""
        source, target = (folder / _name(caption_id) for folder in (self.directory / "recent", self.directory / "kept"))
        target.parent.mkdir(parents=True, exist_ok=True)
        if _total(target.parent) > self._max_bytes:
            log_event("no room to keep the picture of a correction", 30, directory=str(target.parent))
            return False
        try:
            os.link(source, target)
        except FileExistsError:
            return True
        except OSError:
            return False
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued and stop the thread."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(*item)
            except OSError as error:
                self.dropped += 1
                log_event("picture not kept", 40, directory=str(self.directory), error=str(error))
            with self._lock:
                self._queued_bytes -= len(item[1])

    def _write(self, caption_id: str, data: bytes) -> None:
        """The first picture of a name stays: who repeats another's request id replaces nothing."""
        recent = self.directory / "recent"
        recent.mkdir(parents=True, exist_ok=True)
        hidden = recent / f".{uuid.uuid4().hex}.tmp"
        try:
            hidden.write_bytes(data)
            with suppress(FileExistsError):
                os.link(hidden, recent / _name(caption_id))
        finally:
            hidden.unlink(missing_ok=True)
        self._unseen_bytes += len(data)
        if self._unseen_bytes > TRIM_SHARE * self._max_bytes:
            self._unseen_bytes = 0
            trim(recent, self._max_bytes)


def read_picture_of(directory: Path, caption_id: str) -> bytes | None:
    """The picture that a caption was given for; None if it was not kept."""
    for folder in ("kept", "recent"):
        with suppress(FileNotFoundError):
            return (directory / folder / _name(caption_id)).read_bytes()
    return None


def trim(folder: Path, max_bytes: int) -> None:
    """Remove the oldest pictures until the folder holds at most `max_bytes`."""
    found: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size


def _name(caption_id: str) -> str:
    """A file name; ids have letters, digits and `._-`, and a `/` before the picture's number."""
    return f"{caption_id.replace('/', '+')}{SUFFIX}"


def _total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
