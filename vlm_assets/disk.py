"""A disk without room, told in one sentence."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_assets.errors import StoreError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # disk full, quota used up, above the limit of `ulimit -f`


@contextmanager
def room_needed(directory: Path, setting: str = "VLM_STORE") -> Iterator[None]:
    """Turn "no space left" of anything written below `directory` into a StoreError with the bytes that are free.

    `setting` is the variable that names another disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StoreError(_message(directory, error, setting)) from error


def _message(directory: Path, error: OSError, setting: str) -> str:
    there = next(path for path in (directory, *directory.parents) if path.is_dir())
    return (
        f"No room to write below {directory}: {os.strerror(error.errno or 0)}; {shutil.disk_usage(there).free:,} bytes "
        f"are free there. Nothing half-written was kept. Free some space, or set {setting} to a larger disk, and "
        "materialize again."
    )
