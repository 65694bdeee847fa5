"""Working directories that outlive a killed run, so that the next one need not make again what is finished.

One for each recipe, held by whoever works in it. Those of other versions of the same asset go after a week without
anybody: a source or a setting has changed since, and nobody comes back for them.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

ABANDONED_AFTER_S = 7 * 24 * 3600.0
HELD = ".held"  # the lock file in each


class Scratch:
    """The working directories below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: dict[Path, TextIO] = {}

    def open(self, name: str, version: str) -> Path:
        """The directory of this version; nobody removes it before `leave`, or before this process ends."""
        self._sweep(name)
        path = self._path(name, version)
        if path not in self._held:
            self._held[path] = _hold(path)
        return path

    def leave(self, name: str, version: str, *, built: bool) -> None:
        """Let go of it. It is removed once its artifact is `built`, or if nothing is in it; unless others hold it."""
        path = self._path(name, version)
        if path in self._held:
            self._held.pop(path).close()
        if built or _is_empty(path):
            _remove_unless_held(path)

    def _path(self, name: str, version: str) -> Path:
        return self._root / f"{name}-{version}"

    def _sweep(self, name: str) -> None:
        long_ago_s = time.time() - ABANDONED_AFTER_S
        for path in self._root.glob(f"{name}-*"):
            if path.name.rpartition("-")[0] == name and (_is_empty(path) or _last_used_s(path) < long_ago_s):
                _remove_unless_held(path)


def _hold(path: Path) -> TextIO:
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = (path / HELD).open("a")
            fcntl.flock(lock, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(lock.fileno()), (path / HELD).stat()):
                return lock
            lock.close()
        except FileNotFoundError:  # somebody swept it at this very moment
            continue


def _remove_unless_held(path: Path) -> None:
    try:
        with (path / HELD).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # held, gone, or not ours to remove: it costs room and nothing else
        return


def _is_empty(path: Path) -> bool:
    """Whether nothing in it is worth keeping: hidden files are locks, and what a killed process was writing."""
    return all(entry.name.startswith(".") for entry in _entries(path))


def _last_used_s(path: Path) -> float:
    return max(entry.lstat().st_mtime for entry in (path, *_entries(path)))


def _entries(path: Path) -> Iterator[Path]:
    return path.iterdir() if path.is_dir() else iter(())
