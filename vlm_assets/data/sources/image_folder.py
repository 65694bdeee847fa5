"""Your own pictures: a folder with `metadata.jsonl`, `.csv` or `.parquet`, Hugging Face's "imagefolder".

Each row has `file_name` (relative to the metadata file) and its caption(s) in `text` or `captions`, a string or, where
the format has lists, a list of strings. Several rows may name one file; their captions are joined. The split is that of
a column `split`, or else of a folder called `train`, `validation` or `test`, which may have metadata of its own.
https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import splitext
from typing import Literal

import dagster as dg
from pydantic import Field

from vlm_assets.data.sources.base import Attribution, Log, Source, SourceRow, silent
from vlm_assets.data.sources.columns import SPLIT_NAMES, captions_of, missing_column, require_column, split_of, text_of
from vlm_assets.data.sources.entries import Entries, Entry
from vlm_assets.data.sources.files import FileInfo, fingerprint, in_threads, inner_name, open_files
from vlm_assets.data.sources.records import Record, read_records
from vlm_assets.errors import SourceError

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CAPTION_COLUMNS = ("text", "captions")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
EXAMPLE = '{"file_name": "a.png", "text": "a red coat"}'


class ImageFolderConfig(dg.Config):
    """Your own pictures: a folder with metadata.jsonl, .csv or .parquet (file_name, and text or captions)."""

    kind: Literal["image_folder"] = "image_folder"
    path: str = Field(min_length=1, description="the folder that holds the metadata, or s3://bucket/prefix")
    caption_column: str = Field(default="", description="column with the caption(s); empty = text, or else captions")
    group_column: str = Field(
        "", description="column whose equal values stay in one split (sender, product); empty = none"
    )
    title: str = Field(default="", description="what the set is called in the model card; empty = the folder's name")
    licence: str = Field(default="", description="what is allowed with the pictures; travels to the model card")

    def open(self) -> Source:
        """The source that this describes."""
        return ImageFolderSource(self.path, self.caption_column, self.group_column, self.title, self.licence)


@dataclass(frozen=True)
class Metadata:
    """One row of one metadata file."""

    file: str  # "train/metadata.csv"
    where: str  # with the root, for error texts
    record: Record


class ImageFolderSource:
    """Pictures and captions of one folder. Files without a row and rows without a file come out with a reason."""

    def __init__(
        self, path: str | Path, caption_column: str = "", group_column: str = "", title: str = "", licence: str = ""
    ) -> None:
        self.files = open_files(path, "source.image_folder.path")
        self.caption_column = caption_column  # "" = `text`, or else `captions`
        self.group_column = group_column  # "" = every picture stands alone
        folder = self.files.uri.rpartition("/")[2]
        self.attribution = Attribution(title or folder, f"Pictures of the folder {folder}", licence)

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of the metadata, of each picture's bytes and of the columns read; reads a local folder once."""
        read = [info for info in self._listing.values() if info.name in self._pictures or info.name in self._metadata]
        return fingerprint(self.files, read, self.caption_column, self.group_column, log=log)

    def total(self) -> int:
        """Pictures named in the metadata, rows that name none, and pictures that have no row."""
        return len(self._entries) + len(self._unnamed_pictures)

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the named pictures in the metadata's order, then the pictures that it does not name."""
        yield from in_threads(self._row, self._entries)
        for name in self._unnamed_pictures:
            detail = f"{' and '.join(self._metadata)} has no line with this file_name"
            yield SourceRow(name, reason="no_metadata_line", detail=detail, file_name=name)

    def _row(self, entry: Entry) -> SourceRow:
        if entry.reason:
            return entry.unusable(entry.reason, entry.detail)
        if not entry.captions:
            return entry.unusable("no_caption", f"'{self._caption_column}' is missing or empty")
        if entry.file_name not in self._pictures:
            return entry.unusable("missing_picture", f"no picture {entry.file_name} in the folder")
        return entry.read(self.files, self._listing[entry.file_name])

    @cached_property
    def _listing(self) -> Mapping[str, FileInfo]:
        return {info.name: info for info in self.files.list()}

    @cached_property
    def _pictures(self) -> frozenset[str]:
        """Pictures by name relative to the folder; `../elsewhere.png` is never among them."""
        return frozenset(name for name in self._listing if splitext(name)[1].lower() in PICTURE_SUFFIXES)

    @cached_property
    def _unnamed_pictures(self) -> list[str]:
        named = {entry.file_name for entry in self._entries}
        return [name for name in self._listing if name in self._pictures and name not in named]

    @cached_property
    def _metadata(self) -> list[str]:
        """The metadata files: one per folder at most, all of one kind."""
        found = [name for name in self._listing if name.rpartition("/")[2] in METADATA_NAMES]
        kinds = sorted({name.rpartition(".")[2] for name in found})
        if not found:
            raise SourceError(
                f"{self.files.uri} has no {METADATA_NAMES[0]}, .csv or .parquet. Write one line per picture, such as "
                f"{EXAMPLE}."
            )
        if len(kinds) > 1:
            raise SourceError(
                f"{self.files.uri} has metadata of several kinds: {', '.join(found)}. Keep those of one kind."
            )
        return found

    @cached_property
    def _rows(self) -> list[Metadata]:
        rows = [
            Metadata(name, f"{self.files.uri}/{name}:{record.line}", record)
            for name in self._metadata
            for record in read_records(self.files, name)
        ]
        if not rows:
            raise SourceError(f"{self._where} is empty. Write one line per picture into it, such as {EXAMPLE}.")
        return rows

    @cached_property
    def _entries(self) -> Entries:
        if self.group_column:
            require_column(self.group_column, self._columns, self._where, "group_column")
        entries = Entries()
        for row in self._rows:
            folder = row.file.rpartition("/")[0]
            where = f"{row.file}:{row.record.line}"
            if row.record.fault:
                entries.add_unusable(where, "ragged_line", row.record.fault)
                continue
            values, name = row.record.values, self._name(row, folder)
            captions = captions_of(values.get(self._caption_column), row.where, self._caption_column)
            split = split_of(values.get("split"), row.where) or SPLIT_NAMES.get(name.partition("/")[0].lower(), "")
            group = text_of(values.get(self.group_column)) if self.group_column else ""
            entries.add(f"{where} {name}", name, captions, group=group, split=split)
        return entries

    def _name(self, row: Metadata, folder: str) -> str:
        name = row.record.values.get("file_name")
        if not isinstance(name, str) or not name:
            raise SourceError(
                f"{row.where}: no 'file_name' in {dict(row.record.values)!r:.80}. Each row names its picture."
            )
        inner = inner_name(name)
        return name if inner is None else f"{folder}/{inner}" if folder else inner

    @cached_property
    def _columns(self) -> set[str]:
        return {column for row in self._rows for column in row.record.values}

    @cached_property
    def _caption_column(self) -> str:
        if self.caption_column:
            require_column(self.caption_column, self._columns, self._where, "caption_column")
            return self.caption_column
        for column in CAPTION_COLUMNS:
            if column in self._columns:
                return column
        raise missing_column(CAPTION_COLUMNS, self._columns, self._where, "caption_column")

    @property
    def _where(self) -> str:
        return f"{self.files.uri}/{self._metadata[0]}"
