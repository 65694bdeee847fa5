"""Where artifacts are written before they are published: private directories, on the file system of the store."""

import errno
import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from vlm_assets.errors import StoreError
from vlm_assets.processes import is_alive


def staging(housekeeping: Path, name: str, version: str, setting: str) -> AbstractContextManager[Path]:
    """A private directory for one writer of this version; `setting` is the variable that moves it."""
    return Staging(housekeeping / "staging", f"{name}-{version}-pid{os.getpid()}-", setting)


def rename_unless_there(staged: Path, whole: Path) -> None:
    """One rename; the directory that another process of the same recipe put there first stays."""
    whole.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(0o755)  # temporary directories are made for their owner only
    try:
        staged.rename(whole)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


class Staging:
    """A private directory that is gone afterwards, whatever happens."""

    def __init__(self, parent: Path, prefix: str, setting: str) -> None:
        self._parent, self._prefix, self._setting = parent, prefix, setting

    def __enter__(self) -> Path:
        try:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent))
        except OSError as error:
            raise StoreError(
                f"Cannot write to the store at {self._parent}: {error.strerror}. "
                f"Give write permission, or set {self._setting}."
            ) from error
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def remove_dead_staging(housekeeping: Path) -> None:
    """Drop what killed runs of this machine left behind."""
    for path in (housekeeping / "staging").glob("*-pid*-*"):
        pid = path.name.rsplit("-pid", 1)[1].split("-", 1)[0]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)
