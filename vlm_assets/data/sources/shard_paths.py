"""Where tar shards are: in a folder, at one path, or in a list in braces as webdataset takes it: {00000..00099}.tar."""

import re
from collections.abc import Iterator
from pathlib import Path

from vlm_assets.data.sources.documents import listed
from vlm_assets.data.sources.files import FileInfo, Files, open_files, open_parent
from vlm_assets.errors import SourceError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
MAX_NAMES = 1_000_000


class ShardPaths:
    """The shards that a path names, below one root."""

    def __init__(self, path: str, setting: str) -> None:
        self.setting = setting
        self.files: Files
        self.names: list[str] = []  # empty = all shards below the root
        self._prefix = ""
        there = "://" not in path and Path(path).expanduser().is_dir()
        if not there and BRACES.search(path):
            root = path.partition("{")[0].rpartition("/")[0]
            pattern = path.removeprefix(f"{root}/")
            self.files = open_files(root or ("/" if path.startswith("/") else "."), setting)
            self.names = [*dict.fromkeys(expand(pattern, setting))]
            self._prefix = pattern.partition("{")[0]
        elif not there and path.lower().endswith(SUFFIXES):
            self.files, name = open_parent(path, setting)
            self.names, self._prefix = [name], name
        else:
            self.files = open_files(path, setting)

    def find(self) -> list[FileInfo]:
        """The shards in the order of their names, or in which they are listed. SourceError if one is not there."""
        infos = {info.name: info for info in self.files.list(self._prefix)}
        missing = [name for name in self.names if name not in infos]
        if missing:
            there = listed([name for name in infos if name.lower().endswith(SUFFIXES)], limit=4)
            raise SourceError(
                f"{self.files.uri} lacks {len(missing):,} of the {len(self.names):,} shards that {self.setting} names, "
                f"such as {missing[0]}; it has {there}."
            )
        shards = [name for name in self.names or infos if name.lower().endswith(SUFFIXES)]
        if not shards:
            raise SourceError(
                f"{self.files.uri} has no {' or '.join(SUFFIXES)}; it has {listed(infos)}. Set {self.setting} to the "
                "folder of the shards, to one of them, or to a list such as shards/{00000..00099}.tar."
            )
        return [infos[name] for name in shards]


def expand(pattern: str, setting: str) -> Iterator[str]:
    """The names that a pattern with braces stands for, as a shell expands it. SourceError if they are too many."""
    braces = BRACES.search(pattern)
    if not braces:
        yield pattern
        return
    for count, choice in enumerate(_choices(*braces.groups())):
        if count == MAX_NAMES:
            raise SourceError(f"{setting} names more than {MAX_NAMES:,} shards in {braces.group()}. Name the folder.")
        yield from expand(pattern[: braces.start()] + choice + pattern[braces.end() :], setting)


def _choices(first: str | None, last: str | None, words: str | None) -> Iterator[str]:
    if first is None or last is None:
        yield from (words or "").split(",")
        return
    padded = any(text.startswith("0") and len(text) > 1 for text in (first, last))
    width = max(len(first), len(last)) if padded else 0
    start, end = int(first), int(last)
    step = 1 if start <= end else -1
    yield from (f"{number:0{width}d}" for number in range(start, end + step, step))
