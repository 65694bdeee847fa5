"""Where a source's files live: a local folder or `s3://bucket/prefix`, read through one interface.

Names are posix paths relative to the root. A name that climbs out of it ("../x", "/etc/x") is never read.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from vlm_assets.data.sources.base import Log, silent
from vlm_assets.data.workers import in_order
from vlm_assets.errors import SourceError, UnreadableFileError
from vlm_serving.progress import Progress

READERS = 8  # threads: they wait for the disk or the network, or hash without the interpreter's lock
AHEAD = 16  # files in memory at most while they are read ahead

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class FileInfo:
    """One file of a listing."""

    name: str  # posix, relative to the root
    size_bytes: int
    tag: str = ""  # S3's ETag: changes with the content; local files have none


class Files(Protocol):
    """The files below one root. Safe to use from several threads."""

    uri: str

    def list(self, prefix: str = "") -> Iterator[FileInfo]:
        """All files whose name starts with `prefix`, sorted by name; hidden ones (".x", "__MACOSX") are left out.

        Raises SourceError if the root is missing, is a file, cannot be read, or holds nothing at all.
        """
        ...

    def read(self, name: str) -> bytes:
        """The file's bytes. UnreadableFileError: a row to put aside; SourceError: it is there and may be read later."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name. Raises SourceError if that cannot be told."""
        ...

    def open(self, name: str) -> BinaryIO:
        """The file as a seekable stream; raises as `read` does, also while it is read. Close it (`with`)."""
        ...

    def digest(self, info: FileInfo) -> str:
        """Hex digest that changes with the content: sha256 of the bytes, on S3 of ETag and size (no download)."""
        ...


def open_files(root: str | Path, setting: str) -> Files:
    """The files below a local folder or `s3://bucket/prefix`. `setting` is what error texts say to change."""
    text = str(root)
    if text.startswith("s3://"):
        from vlm_assets.data.sources.files_s3 import S3Files

        return S3Files(text, setting)
    if "://" in text:
        raise SourceError(f"{setting} is {text!r}; it takes a local path or s3://bucket/prefix.")
    return LocalFiles(Path(text).expanduser().absolute(), setting)


def open_parent(path: str | Path, setting: str) -> tuple[Files, str]:
    """For a path to one file: the files beside it, and its name among them."""
    parent, _, name = str(path).rstrip("/").rpartition("/")
    if not name:
        raise SourceError(f"{setting} is {str(path)!r}; it takes the path of a file.")
    return open_files(parent or ("/" if str(path).startswith("/") else "."), setting), name


def inner_name(name: str) -> str | None:
    """The name in its one spelling ("./a//b.png" is "a/b.png"), or None if it leads out of the root."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        return None
    return "/".join(parts)


def is_hidden(name: str) -> bool:
    """Whether any part of the name is hidden: ".DS_Store", "._a.jpg", "__MACOSX/a.jpg"."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def fingerprint(files: Files, infos: Iterable[FileInfo], *settings: str, log: Log = silent) -> str:
    """Hex digest of the settings and of each file's name and content; local files are hashed in parallel."""
    listed = list(infos)
    progress = Progress("fingerprint", len(listed), log, "files")
    state = hashlib.sha256("\0".join(settings).encode("utf-8", "surrogateescape"))

    def digest_of(info: FileInfo) -> tuple[str, str]:
        try:
            return info.name, files.digest(info)
        except UnreadableFileError as error:  # a row to put aside, once the rows are read
            return info.name, str(error)

    for name, digest in in_threads(digest_of, listed):
        state.update(f"\0{name}\0{digest}".encode("utf-8", "surrogateescape"))
        progress.advance()
    progress.done()
    return state.hexdigest()


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], readers: int = READERS, ahead: int = AHEAD
) -> Iterator[Result]:
    """`map` in order, up to `ahead` items early: so that a slow disk or network is waited for once, not per file."""
    return in_order(function, items, readers, ahead)


class LocalFiles:
    """Files of a local folder. Links to files and folders are followed; a folder is never entered within itself."""

    def __init__(self, root: Path, setting: str) -> None:
        self.root, self.setting = root, setting
        self.uri = str(root)

    def list(self, prefix: str = "") -> Iterator[FileInfo]:
        """See Files."""
        self._check_root()
        start = prefix.rpartition("/")[0]
        if start and inner_name(start) != start:
            raise outside(prefix, self.uri)
        names = sorted(self._walk(self.root / start, start, ()))
        if not names and not prefix:
            raise SourceError(f"The folder {self.uri} is empty. Put the files there, or change {self.setting}.")
        for name in names:
            if name.startswith(prefix):
                yield FileInfo(name, os.stat(f"{self.uri}/{name}").st_size)

    def read(self, name: str) -> bytes:
        """See Files."""
        with self.open(name) as file:
            return self._guarded(name, file.read)

    def exists(self, name: str) -> bool:
        """See Files."""
        inner = inner_name(name)
        return inner is not None and (self.root / inner).is_file()

    def open(self, name: str) -> BinaryIO:
        """See Files."""
        self._check_root()
        inner = inner_name(name)
        if inner is None:
            raise outside(name, self.uri)
        return self._guarded(name, (self.root / inner).open, "rb")

    def digest(self, info: FileInfo) -> str:
        """See Files."""
        with self.open(info.name) as file:
            return self._guarded(info.name, hashlib.file_digest, file, "sha256").hexdigest()

    def _guarded(self, name: str, function: Callable[..., Result], *arguments: object) -> Result:
        try:
            return function(*arguments)
        except FileNotFoundError as error:
            raise UnreadableFileError(f"There is no file {self.root / name}. Check {self.setting}.") from error
        except OSError as error:
            raise UnreadableFileError(f"Cannot read {self.root / name}: {error.strerror}.") from error

    def _walk(self, folder: Path, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            entries = [] if here in above else [*os.scandir(folder)]  # a link to a folder above would never end
        except FileNotFoundError:
            return
        except OSError as error:
            raise SourceError(f"Cannot read the folder {folder}: {error.strerror}. Give read permission.") from error
        for entry in entries:
            inner = f"{name}/{entry.name}" if name else entry.name
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                yield from self._walk(folder / entry.name, inner, (*above, here))
            elif entry.is_file():
                yield inner

    def _check_root(self) -> None:
        if not self.root.is_dir():
            what = "is not a folder" if self.root.exists() else "does not exist"
            raise SourceError(f"The folder {self.uri} {what}. Set {self.setting} to one.")


def outside(name: str, uri: str) -> UnreadableFileError:
    """The error for a name that leads out of the root."""
    return UnreadableFileError(f"{name!r} leads out of {uri}; files outside are never read.")
