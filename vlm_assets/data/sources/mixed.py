"""Corrections behind the main source: one stream of rows, so that pictures of both are merged and split alike."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vlm_assets.data.sources.base import Attribution, Log, Source, SourceRow, silent
from vlm_assets.data.tables import read_json, read_rows, stream_pictures


class SnapshotSource:
    """The pictures of a snapshot that another import wrote, each with all its captions."""

    def __init__(self, directory: Path, version: str) -> None:
        self._directory, self._version = directory, version

    @property
    def attribution(self) -> Attribution:
        """As it was imported."""
        return Attribution(**read_json(self._directory / "summary.json")["attribution"])

    def fingerprint(self, log: Log = silent) -> str:
        """The artifact's own version."""
        return self._version

    def total(self, log: Log = silent) -> int:
        """Number of pictures."""
        return read_json(self._directory / "summary.json")["pictures"]

    def __iter__(self) -> Iterator[SourceRow]:
        """One row per picture, in the order of the packs, which is that of arrival."""
        rows = {row["sha256"]: row for row in read_rows(self._directory / "rows.parquet")}
        for sha256, picture in stream_pictures(self._directory):
            row = rows[sha256]
            yield SourceRow(row["source_rows"][0], picture, captions=tuple(row["captions"]), file_name=row["file_name"])


class MixedSource:
    """One source, then another. A picture that both have gets the captions of both."""

    def __init__(self, main: Source, further: Source) -> None:
        self._main, self._further = main, further

    @property
    def attribution(self) -> Attribution:
        """The main source's, naming the other."""
        main, further = self._main.attribution, self._further.attribution
        return replace(main, text=f"{main.text} {further.title}: {further.text}")

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of both."""
        parts = (self._main.fingerprint(log), self._further.fingerprint(log))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def total(self, log: Log = silent) -> int:
        """Rows of both."""
        return self._main.total(log) + self._further.total(log)

    def __iter__(self) -> Iterator[SourceRow]:
        """The rows of the main source keep their places: what is appended moves none of them."""
        yield from self._main
        yield from self._further
