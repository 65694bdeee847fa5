"""Hugging Face data sets: by hub id at a pinned commit, or Parquet, Arrow and `save_to_disk`, local or on S3."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from vlm_assets.data.sources.base import Attribution, Log, Source, SourceRow, UnusableRowError, silent
from vlm_assets.data.sources.columns import (
    SHOWN_CHARACTERS,
    SPLIT_NAMES,
    captions_of,
    missing_column,
    require_column,
    split_of,
    text_of,
    value_of,
)
from vlm_assets.data.sources.files import LocalFiles, in_threads, open_files, open_parent
from vlm_assets.data.sources.hub import HUB_ID, LoadedRows
from vlm_assets.data.sources.named_files import web_address
from vlm_assets.data.sources.rows import Column, Row, Rows
from vlm_assets.data.sources.shard_files import ShardFiles
from vlm_assets.errors import ConfigError, SourceError, UnreadableFileError

CAPTION_COLUMNS = ("caption", "captions", "text", "sentences")
LISTS = ("list", "large_list", "fixed_size_list", "sequence")  # what the types of lists begin with
TEXTS = ("string", "utf8", "struct", "null", "{")  # what is in the types that may hold captions
OUR_SPLITS = ("train", "val", "test", "")


class HuggingFaceConfig(dg.Config):
    """A data set of the hub, or one that `datasets` wrote: Parquet or Arrow files, a save_to_disk directory."""

    kind: Literal["huggingface"] = "huggingface"
    path: str = Field(
        min_length=1, description="hub id (owner/name), or a local folder or file, or s3://bucket/prefix with Parquet"
    )
    name: str = Field(default="", description="the data set's configuration, where it has several; empty = the default")
    revision: str = Field(
        default="", description="commit, tag or branch on the hub; empty = what is newest now, which is then recorded"
    )
    picture_column: str = Field(default="image", min_length=1, description="column with the picture, or with its path")
    caption_columns: list[str] = Field(
        default=[],
        description="columns with the captions; a.b looks into a struct; empty = caption, captions, text, ...",
    )
    group_column: str = Field(default="", description="column whose equal values stay in one split; empty = none")
    split_column: str = Field(default="", description="column with train, val or test; empty = the data set's splits")
    splits: dict[str, str] = Field(
        default={},
        description='the data set\'s split: train, val, test, or "" to split anew; others are left out; '
        "empty = all, as they are called, or anew if there is but one",
    )
    title: str = Field(default="", description="what the set is called in the model card; empty = its name")
    licence: str = Field(default="", description="what is allowed with the pictures; travels to the model card")

    def open(self) -> Source:
        """The source that this describes. Raises ConfigError on splits that do not exist here."""
        unknown = sorted({ours for ours in self.splits.values() if ours not in OUR_SPLITS})
        if unknown:
            raise ConfigError(
                f"source.huggingface.splits maps to {', '.join(map(repr, unknown))}; use train, val, test or ''."
            )
        return HuggingFaceSource(self, _rows_of(self))


class HuggingFaceSource:
    """One row per row of the data set."""

    def __init__(self, config: HuggingFaceConfig, rows: Rows) -> None:
        self.config, self.data = config, rows

    @property
    def attribution(self) -> Attribution:
        """The data set, at the very commit."""
        title = self.config.title or self.data.title
        return Attribution(title, f"Pictures and captions of {title}", self.config.licence, self.data.url)

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of the files, or the hub's commit: rows are not read for it."""
        return self.data.fingerprint(log)

    def total(self, log: Log = silent) -> int:
        """Rows in the chosen splits."""
        return self.data.total([*self._splits], log)

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the rows, split by split."""
        self._check_columns()
        columns = [self.config.picture_column, *self._caption_columns, self.config.group_column]
        wanted = dict.fromkeys(_outer(column) for column in (*columns, self.config.split_column) if column)
        yield from in_threads(self._row, self.data.rows([*self._splits], [*wanted]))

    def _row(self, row: Row) -> SourceRow:
        file_name = ""
        try:
            file_name, path, picture = _picture_of(row.values.get(self.config.picture_column))
            found = (captions_of(self._value(row, column), column) for column in self._caption_columns)
            captions = tuple(dict.fromkeys(caption for each in found for caption in each))
            if not captions:
                raise UnusableRowError("no_caption", f"{', '.join(self._caption_columns)}: empty")
            if picture is None and not path:
                raise UnusableRowError("missing_picture", f"'{self.config.picture_column}' is empty")
            split = self._split(row)
            data = self._read(path) if picture is None else picture
        except UnusableRowError as fault:
            return SourceRow(row.where, reason=fault.reason, detail=str(fault), file_name=file_name)
        group = text_of(self._value(row, self.config.group_column)) if self.config.group_column else ""
        return SourceRow(row.where, data, captions=captions, group=group, split=split, file_name=file_name)

    def _read(self, path: str) -> bytes:
        if address := web_address(path):
            raise UnusableRowError("picture_is_a_url", address)
        try:
            return self.data.read(path)
        except UnreadableFileError as error:
            raise UnusableRowError("unreadable_picture", str(error)) from error

    def _value(self, row: Row, column: str) -> Any:
        """The value of a column; of a class label the name that its number stands for."""
        value, declared = value_of(row.values, column), self._columns.get(column)
        return _labelled(value, declared.labels) if declared and declared.labels else value

    def _split(self, row: Row) -> str:
        column = self.config.split_column
        return split_of(self._value(row, column)) if column else self._splits[row.split]

    def _check_columns(self) -> None:
        """All columns that the settings name are there, and of a type that can be read, as far as it is declared."""
        picture, captions = self.config.picture_column, self._caption_columns
        for column in filter(None, (picture, *captions, self.config.group_column, self.config.split_column)):
            require_column(_outer(column), self._columns, self.data.title, self._setting(column))
        if self._columns[_outer(picture)].kind.lower().startswith(LISTS):
            raise self._wrong_kind(picture, "one picture a row (an image, its bytes or its path)")
        for column in captions:
            declared = self._columns.get(column)  # None: it is inside a struct
            if declared and declared.kind and not (declared.labels or any(word in declared.kind for word in TEXTS)):
                raise self._wrong_kind(column, "text, a list of texts, or class labels")

    def _wrong_kind(self, column: str, expected: str) -> SourceError:
        return SourceError(
            f"{self.data.title}: the column '{column}' is of type {self._columns[column].kind[:SHOWN_CHARACTERS]}; "
            f"expected {expected}. Set {self._setting(column)} to another column, or write the data set anew."
        )

    @cached_property
    def _splits(self) -> Mapping[str, str]:
        """The data set's splits that are read, and what they are here."""
        found = self.data.splits()
        missing = [split for split in self.config.splits if split not in found]
        if missing:
            raise SourceError(
                f"{self.data.title} has no split {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(repr, found))}. Set source.huggingface.splits."
            )
        if self.config.splits:
            return self.config.splits
        if len(found) == 1 or self.config.split_column:
            return dict.fromkeys(found, "")
        unknown = [split for split in found if split and split.lower() not in SPLIT_NAMES]
        if unknown:
            raise SourceError(
                f"{self.data.title} has splits of which it is not clear who trains on them: "
                f"{', '.join(map(repr, unknown))} of {', '.join(map(repr, found))}. Set source.huggingface.splits."
            )
        return {split: SPLIT_NAMES.get(split.lower(), "") for split in found}

    @cached_property
    def _columns(self) -> Mapping[str, Column]:
        return self.data.columns()

    @cached_property
    def _caption_columns(self) -> list[str]:
        if self.config.caption_columns:
            return self.config.caption_columns
        for column in CAPTION_COLUMNS:
            if column in self._columns:
                return [column]
        raise missing_column(CAPTION_COLUMNS, self._columns, self.data.title, "caption_columns")

    def _setting(self, column: str) -> str:
        names = ("picture_column", "group_column", "split_column")
        return next((name for name in names if getattr(self.config, name) == column), "caption_columns")


def _rows_of(config: HuggingFaceConfig) -> Rows:
    """Parquet and Arrow files are read here; everything else by `datasets`."""
    setting = "source.huggingface.path"
    path = Path(config.path).expanduser()
    remote = "://" in config.path
    if not remote and not path.exists() and HUB_ID.match(config.path):
        return LoadedRows(config.path, config.name, config.revision)
    if config.path.endswith((".parquet", ".arrow")):
        files, name = open_parent(config.path, setting)
        if not files.exists(name):
            raise SourceError(f"There is no file {files.uri}/{name}. Check {setting}.")
        return ShardFiles(files, name)
    files = open_files(config.path, setting)
    shards = ShardFiles(files)
    if shards.found and not config.name:
        return shards
    if isinstance(files, LocalFiles):
        return LoadedRows(str(files.root), config.name, "", files)
    raise SourceError(f"{files.uri} has no .parquet and no .arrow file. Upload them there, or change {setting}.")


def _picture_of(value: Any) -> tuple[str, str, bytes | None]:
    """Name, path and bytes of a picture, as far as the value has them: `datasets.Image`, bytes, or a path."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "", "", bytes(value)
    if isinstance(value, Mapping):
        path, data = text_of(value.get("path")), value.get("bytes")  # pyright: ignore
        return PurePosixPath(path).name, path, None if data is None else bytes(data)  # pyright: ignore
    if value is not None and not isinstance(value, (str, float)):
        detail = f"the picture is a {type(value).__name__}; expected an image, its bytes or its path"
        raise UnusableRowError("malformed_picture", detail)
    path = text_of(value)
    return PurePosixPath(path).name, path, None


def _labelled(value: Any, labels: Sequence[str]) -> Any:
    """The names of class labels; -1 and nothing stand for none."""
    if isinstance(value, list):
        return [_labelled(item, labels) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return labels[value] if isinstance(value, int) and 0 <= value < len(labels) else None


def _outer(column: str) -> str:
    return column.partition(".")[0]
