"""A folder, bucket or table cut into blocks, and the reading of one: what is captioned, kept and resumed as a whole."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, TypeVar

import pyarrow.parquet as pq

from vlm_assets.data.picture_file import PICTURE_SUFFIXES
from vlm_assets.data.sources.base import Log
from vlm_assets.data.sources.files import FileInfo, Files, fingerprint, in_threads, open_files, open_parent
from vlm_assets.errors import SourceError, UnreadableFileError

SETTING = "pictures of bulk_captions"
TABLE = ".parquet"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Block:
    """Picture files by name, or a row group of a table's file."""

    number: int
    names: tuple[str, ...]
    pictures: int
    row_group: int | None = None


@dataclass(frozen=True)
class Plan:
    """The blocks of one source, and what changes with its content."""

    root: str
    blocks: tuple[Block, ...]
    fingerprint: str

    @property
    def pictures(self) -> int:
        """How many there are."""
        return sum(block.pictures for block in self.blocks)


@dataclass(frozen=True)
class Read:
    """A picture of a block: its bytes, or why there are none."""

    id: str
    data: bytes
    error: str = ""


def plan_blocks(pictures: str, picture_column: str, id_column: str, block_pictures: int, log: Log) -> Plan:
    """List the source. Raises SourceError if it cannot be read, or holds neither pictures nor a table."""
    files, listed = _listed(pictures)
    tables = [info for info in listed if info.name.endswith(TABLE)]
    found = [info for info in listed if _suffix(info.name) in PICTURE_SUFFIXES]
    if bool(tables) == bool(found):
        kinds = "both picture files and Parquet tables" if tables else "neither picture files nor a Parquet table"
        raise SourceError(f"{files.uri} holds {kinds}. Set {SETTING} to a place with one of them.")
    if found:
        parts = chunks((info.name for info in found), block_pictures)
        blocks = tuple(Block(number, names, len(names)) for number, names in enumerate(parts))
        return Plan(files.uri, blocks, fingerprint(files, found, log=log))
    blocks = tuple(_row_groups(files, tables, [picture_column, *([id_column] if id_column else [])]))
    if not blocks:
        raise SourceError(f"The Parquet table {files.uri} has no rows. Change {SETTING}.")
    return Plan(files.uri, blocks, fingerprint(files, tables, picture_column, id_column, log=log))


def read_block(root: str, block: Block, picture_column: str, id_column: str) -> Iterator[Read]:
    """The block's pictures, in order, a few in memory at a time. Raises SourceError if the source is away."""
    files = open_files(root, SETTING)
    if block.row_group is None:
        yield from in_threads(lambda name: _read_file(files, name), block.names)
    else:
        yield from _read_rows(files, block, picture_column, id_column)


def chunks(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Up to `size` at a time."""
    remaining = iter(items)
    while some := tuple(islice(remaining, size)):
        yield some


def _listed(pictures: str) -> tuple[Files, Sequence[FileInfo]]:
    if not pictures.endswith(TABLE):
        files = open_files(pictures, SETTING)
        return files, list(files.list())
    files, name = open_parent(pictures, SETTING)
    found = [info for info in files.list(name) if info.name == name]
    if not found:
        raise SourceError(f"There is no file {pictures}. Change {SETTING}.")
    return files, found


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2].lower()}"


def _row_groups(files: Files, tables: Iterable[FileInfo], columns: Sequence[str]) -> Iterator[Block]:
    number = count()
    for info in tables:
        with files.open(info.name) as stream:
            try:
                file = pq.ParquetFile(stream)
            except (OSError, ValueError) as error:
                raise SourceError(f"{files.uri}/{info.name} is no Parquet file ({error}). Write it again.") from error
            missing = [column for column in columns if column not in file.schema_arrow.names]
            if missing:
                raise SourceError(
                    f"{files.uri}/{info.name} has no column {', '.join(missing)}; it has "
                    f"{', '.join(file.schema_arrow.names)}. Set picture_column and id_column to some of these."
                )
            for group in range(file.num_row_groups):
                yield Block(next(number), (info.name,), file.metadata.row_group(group).num_rows, group)


def _read_file(files: Files, name: str) -> Read:
    try:
        return Read(name, files.read(name))
    except UnreadableFileError as error:
        return Read(name, b"", str(error))


def _read_rows(files: Files, block: Block, picture_column: str, id_column: str) -> Iterator[Read]:
    name = block.names[0]
    with files.open(name) as stream:
        file = pq.ParquetFile(stream)
        before = sum(file.metadata.row_group(group).num_rows for group in range(block.row_group or 0))
        rows = count(before)
        columns = [picture_column, *([id_column] if id_column else [])]
        for batch in file.iter_batches(16, row_groups=[block.row_group], columns=columns):
            for row in batch.to_pylist():
                here = f"{name}#{next(rows)}"
                yield _row(str(row[id_column]) if id_column else here, row[picture_column])


def _row(name: str, value: Any) -> Read:
    data = value.get("bytes") if isinstance(value, dict) else value
    return Read(name, data) if isinstance(data, bytes) else Read(name, b"", "The row holds no picture's bytes.")
