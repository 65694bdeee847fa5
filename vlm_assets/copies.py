"""Local copies of what is remote: each appears whole by one rename, and the least recently used give way to new ones.

Safe between processes of one machine. A copy that a living process uses is never removed, so the limit can be exceeded
by what is in use at once.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vlm_assets.disk import room_needed
from vlm_assets.errors import StoreError
from vlm_assets.locks import locked
from vlm_assets.processes import is_alive


class Copies:
    """Directories below `root`, together about `limit_bytes` at most. `setting` is the variable that moves them."""

    def __init__(self, root: Path, limit_bytes: int, setting: str) -> None:
        self.root, self.limit_bytes, self._setting = root, limit_bytes, setting
        self._leases = root / ".leases"

    def keep(self, name: str, fetch: Callable[[Path], object]) -> Path:
        """The copy called `name`, made by `fetch` if it is not there; it stays as long as this process lives."""
        with room_needed(self.root, self._setting), self._locked():
            (self._leases / f"{name}@{os.getpid()}-").touch()
        return self._get(name, fetch)

    @contextmanager
    def use(self, name: str, fetch: Callable[[Path], object]) -> Iterator[Path]:
        """The same; it stays at least until the block ends."""
        lease = self._lease(name)
        try:
            yield self._get(name, fetch)
        finally:
            with suppress(OSError):
                lease.unlink()

    def has(self, name: str) -> bool:
        """Whether there is a copy called `name` at this moment."""
        return (self.root / name).is_dir()

    def _get(self, name: str, fetch: Callable[[Path], object]) -> Path:
        final = self.root / name
        if not final.is_dir():
            self._fetch(final, fetch)
            self._make_room()
        with suppress(FileNotFoundError):
            os.utime(final)  # used now; the oldest goes first
        return final

    def _fetch(self, final: Path, fetch: Callable[[Path], object]) -> None:
        with room_needed(final, self._setting):
            fresh = Path(tempfile.mkdtemp(dir=self.root, prefix=f".pid{os.getpid()}-"))
            try:
                fetch(fresh)
                fresh.rename(final)
            except OSError:
                if not final.is_dir():  # else another process fetched it meanwhile
                    raise
            finally:
                shutil.rmtree(fresh, ignore_errors=True)

    def _lease(self, name: str) -> Path:
        """From here on nobody removes the copy; the lease of a dead process counts for nothing."""
        with room_needed(self.root, self._setting), self._locked():
            handle, path = tempfile.mkstemp(dir=self._leases, prefix=f"{name}@{os.getpid()}-")
            os.close(handle)
            return Path(path)

    def _make_room(self) -> None:
        """Remove the oldest copies until the rest fits, what dead processes were fetching, and their leases."""
        with self._locked():
            for path in self.root.glob(".pid*-*"):
                if not is_alive(int(path.name.removeprefix(".pid").split("-")[0])):
                    shutil.rmtree(path, ignore_errors=True)
            used = self._used()
            copies = sorted((path.stat().st_mtime, path) for path in self.root.iterdir() if path.name[0] != ".")
            sizes = {path: _bytes_of(path) for _, path in copies}
            excess = sum(sizes.values()) - self.limit_bytes
            for _, path in copies:
                if excess <= 0:
                    break
                if path.name not in used:
                    shutil.rmtree(path, ignore_errors=True)
                    excess -= sizes[path]

    def _used(self) -> set[str]:
        names: set[str] = set()
        for lease in self._leases.iterdir():
            name, _, rest = lease.name.rpartition("@")
            if is_alive(int(rest.split("-")[0])):
                names.add(name)
            else:
                lease.unlink(missing_ok=True)
        return names

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._leases.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"Cannot write copies to {self.root}: {error.strerror}. Give write permission, or set {self._setting}."
            ) from error
        with locked(self.root / ".lock"):
            yield


def _bytes_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
