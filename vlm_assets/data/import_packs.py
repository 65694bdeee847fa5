"""The packs of a running import: what is finished survives a kill.

A pack is a Parquet file of pictures with a journal beside it: the readings of all rows that it covers, in order. The
journal is renamed into place last, so a pack with its journal is whole and anything else does not count.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from vlm_assets.data.snapshot import Reading
from vlm_assets.data.tables import PICTURES, PackFile

PACK_BYTES = 64 * 1024 * 1024  # of pictures: some seconds of work, all that a kill can cost
PREFIX = "pictures"


class ImportPacks:
    """Writes pictures with the readings that led to them into `work`; finds there what an earlier run finished.

    A context: what is unfinished at its end goes.
    """

    def __init__(self, work: Path, pack_bytes: int = PACK_BYTES) -> None:
        self._work, self._pack_bytes = work, pack_bytes
        self._count = 0
        self._readings: list[Reading] = []
        self._pack: PackFile | None = None

    def __enter__(self) -> Self:
        """Remove what a killed run was writing."""
        for file in self._work.glob(f".{PREFIX}-*"):
            file.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what is unfinished."""
        if self._pack is not None:
            self._pack.abandon()

    def finished(self) -> Iterator[Reading]:
        """Yield what the whole packs of an earlier run hold, in order; goes on behind them from then on."""
        while (found := self._journal(self._count)) is not None:
            yield from (Reading.from_json(reading) for reading in found)
            self._count += 1

    def add(self, reading: Reading, picture: Mapping[str, Any] | None) -> None:
        """Take a reading, and its row of the pack if the picture is new."""
        self._readings.append(reading)
        if picture is None:
            return
        pack = self._pack = self._pack or self._open()
        pack.add(picture)
        if pack.bytes >= self._pack_bytes:
            self._finish_pack(pack)

    def finish(self, directory: Path) -> None:
        """Write what is waiting and put all packs into `directory`."""
        if self._pack is not None or self._count == 0:
            self._finish_pack(self._pack or self._open())
        for number in range(self._count):
            pack = self._pack_path(number)
            if directory == self._work:
                self._journal_path(number).unlink()
            else:
                _link(pack, directory / pack.name)

    def _open(self) -> PackFile:
        path = self._pack_path(self._count)
        return PackFile(path.with_name(f".{path.name}"), PICTURES)

    def _finish_pack(self, fresh: PackFile) -> None:
        fresh.close()
        pack = fresh.path.replace(self._pack_path(self._count))
        head = {"pack": pack.name, "bytes": pack.stat().st_size}
        lines = (json.dumps(line) for line in (head, *(reading.to_json() for reading in self._readings)))
        with _renamed_when_whole(self._journal_path(self._count)) as journal:
            journal.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._count += 1
        self._readings, self._pack = [], None

    def _journal(self, number: int) -> list[dict[str, Any]] | None:
        pack = self._pack_path(number)
        try:
            head, *readings = self._journal_path(number).read_text(encoding="utf-8").splitlines()
            whole = json.loads(head) == {"pack": pack.name, "bytes": pack.stat().st_size}
        except (FileNotFoundError, ValueError):
            return None
        return [json.loads(reading) for reading in readings] if whole else None

    def _pack_path(self, number: int) -> Path:
        return self._work / f"{PREFIX}-{number:05d}.parquet"

    def _journal_path(self, number: int) -> Path:
        return self._work / f"journal-{number:05d}.jsonl"


class _renamed_when_whole:
    """A private name to write to, which becomes the real one at the end, or goes."""

    def __init__(self, path: Path) -> None:
        self._path, self._fresh = path, path.with_name(f".{path.name}.{os.getpid()}")

    def __enter__(self) -> Path:
        return self._fresh

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._fresh.replace(self._path)
        else:
            self._fresh.unlink(missing_ok=True)


def _link(file: Path, target: Path) -> None:
    """A second name costs no room, and the first stays for a rerun; where that is impossible, a copy."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
