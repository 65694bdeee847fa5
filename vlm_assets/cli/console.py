"""What `make demo` shows: its own lines on the terminal, everything else in a log file."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


class Console:
    """Lines for people, each with the time since the start; also written to the log."""

    def __init__(self, terminal: TextIO, log: TextIO) -> None:
        self._terminal, self._log = terminal, log
        self._started_s = time.monotonic()

    def say(self, text: str) -> None:
        """One line of progress."""
        minutes, seconds = divmod(int(self.elapsed_s()), 60)
        self.show(f"{minutes:02d}:{seconds:02d}  {text}")

    def show(self, text: str) -> None:
        """Text as it is."""
        for stream in (self._terminal, self._log):
            print(text, file=stream, flush=True)

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started_s


@contextmanager
def console_only(log_file: Path) -> Iterator[Console]:
    """Send stdout and stderr of this process, its libraries and children to `log_file`; yields the way to the terminal.

    Done on the file descriptors: progress bars and warnings of C libraries do not pass through sys.stdout.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log_file.open("w") as log, os.fdopen(os.dup(1), "w") as terminal:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield Console(terminal, log)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])
