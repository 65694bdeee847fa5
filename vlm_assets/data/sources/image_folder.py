"""Your own pictures: a folder with `metadata.jsonl`, `.csv` or `.parquet`, Hugging Face's "imagefolder".

Each row has `file_name` (relative to the metadata file) and its caption(s) in `text` or `captions`, a string or, where
the format has lists, a list of strings. Several rows may name one file; their captions are joined. The split is that of
a column `split`, or else of a folder called `train`, `validation` or `test`, which may have metadata of its own.
https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from posixpath import splitext
from typing import Literal

import dagster as dg
from pydantic import Field

from vlm_assets.data.picture_file import PICTURE_SUFFIXES
from vlm_assets.data.sources.base import Attribution, Log, Source, SourceRow, UnusableRowError, silent
from vlm_assets.data.sources.columns import (
    SHOWN_CHARACTERS,
    SPLIT_NAMES,
    captions_of,
    missing_column,
    require_column,
    split_of,
    text_of,
)
from vlm_assets.data.sources.documents import listed, near
from vlm_assets.data.sources.entries import Entries, Entry
from vlm_assets.data.sources.files import fingerprint, in_threads, inner_name, open_files
from vlm_assets.data.sources.named_files import NamedFiles, web_address
from vlm_assets.data.sources.records import Record, read_columns, read_records
from vlm_assets.errors import SourceError

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CAPTION_COLUMNS = ("text", "captions")
NAME_COLUMN, SPLIT_COLUMN = "file_name", "split"
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


class ImageFolderSource:
    """Pictures and captions of one folder. Files without a row and rows without a file come out with a reason.

    Of the metadata only the columns that are read are taken, row by row; what stays in memory is about 1 kB a picture.
    """

    def __init__(
        self, path: str | Path, caption_column: str = "", group_column: str = "", title: str = "", licence: str = ""
    ) -> None:
        self.files = open_files(path, "source.image_folder.path")
        self.caption_column = caption_column  # "" = `text`, or else `captions`
        self.group_column = group_column  # "" = every picture stands alone
        folder = self.files.uri.rpartition("/")[2]
        self.attribution = Attribution(title or folder, f"Pictures of the folder {folder}", licence)

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of the metadata, of each picture's bytes and of the columns read. On S3 no picture is downloaded."""
        read = {*self._metadata, *self._named, *self._unnamed_pictures}
        infos = [info for info in self._listing if info.name in read]
        return fingerprint(self.files, infos, self.caption_column, self.group_column, log=log)

    def total(self, log: Log = silent) -> int:
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
        info = self._listing.find(entry.file_name)
        if info is None:
            return entry.unusable("missing_picture", self._listing.missing(entry.file_name, "the folder"))
        return entry.read(self.files, info)

    @cached_property
    def _listing(self) -> NamedFiles:
        """All files by name relative to the folder; `../elsewhere.png` is never among them."""
        return NamedFiles(self.files.list())

    @cached_property
    def _named(self) -> set[str]:
        return {entry.file_name for entry in self._entries}

    @cached_property
    def _unnamed_pictures(self) -> list[str]:
        """Whatever the metadata names is read; of the other files, those that are pictures by their suffix count."""
        pictures = [info.name for info in self._listing if splitext(info.name)[1].lower() in PICTURE_SUFFIXES]
        return [name for name in pictures if name not in self._named]

    @cached_property
    def _metadata(self) -> list[str]:
        """The metadata files: one per folder at most, all of one kind."""
        found = [info.name for info in self._listing if info.name.rpartition("/")[2] in METADATA_NAMES]
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
    def _entries(self) -> Entries:
        if self.group_column:
            require_column(self.group_column, self._columns, self._where, "group_column")
        wanted = {NAME_COLUMN, SPLIT_COLUMN, self._caption_column, self.group_column}
        entries = Entries()
        for file in self._metadata:
            for record in read_records(self.files, file, columns=wanted):
                self._add(entries, file, record)
        if not len(entries):
            raise self._empty()
        return entries

    def _add(self, entries: Entries, file: str, record: Record) -> None:
        """Take one row. What is wrong with its own cells puts it aside; the others are none the worse for it."""
        where, values, name = f"{file}:{record.line}", record.values, ""
        try:
            if record.fault:
                raise UnusableRowError("ragged_line", record.fault)
            name = self._name(values.get(NAME_COLUMN), file)
            captions = captions_of(values.get(self._caption_column), self._caption_column)
            split = split_of(values.get(SPLIT_COLUMN)) or SPLIT_NAMES.get(name.partition("/")[0].lower(), "")
        except UnusableRowError as fault:
            entries.add_unusable(f"{where} {name}".strip(), fault.reason, str(fault), name)
            return
        group = text_of(values.get(self.group_column)) if self.group_column else ""
        entries.add(f"{where} {name}", name, captions, group=group, split=split)

    def _name(self, said: object, file: str) -> str:
        """The picture's name below the root, as the disk spells it. Raises UnusableRowError if the row names none."""
        if not isinstance(said, str) or not said.strip():
            detail = (
                f"'{NAME_COLUMN}' holds {text_of(said)[:SHOWN_CHARACTERS] or 'nothing'}; expected the picture's name"
            )
            raise UnusableRowError("no_file_name", detail)
        if address := web_address(said):
            raise UnusableRowError("picture_is_a_url", address)
        folder, inner = file.rpartition("/")[0], inner_name(said)
        name = said if inner is None else f"{folder}/{inner}" if folder else inner
        found = self._listing.find(name)
        return found.name if found else name

    @cached_property
    def _columns(self) -> list[str]:
        columns = dict.fromkeys(column for file in self._metadata for column in read_columns(self.files, file))
        if not columns:
            raise self._empty()
        if NAME_COLUMN not in columns:
            raise SourceError(
                f"{self._where} has no column '{NAME_COLUMN}'; it has {listed(columns)}.{near(NAME_COLUMN, columns)} "
                "Each row names its picture in it."
            )
        return [*columns]

    @cached_property
    def _caption_column(self) -> str:
        if self.caption_column:
            require_column(self.caption_column, self._columns, self._where, "caption_column")
            return self.caption_column
        for column in CAPTION_COLUMNS:
            if column in self._columns:
                return column
        raise missing_column(CAPTION_COLUMNS, self._columns, self._where, "caption_column")

    def _empty(self) -> SourceError:
        return SourceError(f"{self._where} is empty. Write one line per picture into it, such as {EXAMPLE}.")

    @property
    def _where(self) -> str:
        return f"{self.files.uri}/{self._metadata[0]}"
