"""Rows of a table in a file: CSV, TSV, JSON lines or Parquet, streamed, with line numbers for whoever repairs it."""

# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import csv
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from vlm_assets.data.sources.files import Files
from vlm_assets.errors import SourceError

SUFFIXES = ("csv", "tsv", "txt", "jsonl", "ndjson", "parquet")  # .txt is CSV: Kaggle's captions.txt
DELIMITERS = (",", ";", "\t", "|")  # Excel writes ";" where the comma is the decimal point
PARQUET_BATCH_ROWS = 256
PARQUET_BUFFER_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # as Windows editors leave it
JSON_EXAMPLE = '{"file_name": "a.png", "text": "a red coat"}'


@dataclass(frozen=True)
class Record:
    """One row of a table. A row that is not like the header says so in `fault` and has no values."""

    line: int  # of the file, where it starts; in Parquet, which has no lines, the number of the row; from 1
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fault: str = ""


Wanted = Collection[str] | None  # columns; None = all
Reader = Callable[[BinaryIO, str, Wanted], Iterator[Record]]


def read_records(files: Files, name: str, delimiter: str = "", columns: Wanted = None) -> Iterator[Record]:
    """Stream the rows of a table, with no other columns than those wanted; its kind is told by the suffix.

    `delimiter` is that of CSV; "" = a tab for .tsv, else whichever the header has most of. Raises SourceError with
    file and line on what is not UTF-8, not JSON, not CSV or not Parquet.
    """
    with _opened(files, name) as (kind, file, where):
        if kind == "parquet":
            yield from _read_parquet(file, where, columns)
        elif kind in ("jsonl", "ndjson"):
            yield from _read_json_lines(file, where, columns)
        else:
            yield from _read_csv(file, where, columns, _delimiter(kind, delimiter))


def read_columns(files: Files, name: str, delimiter: str = "") -> list[str]:
    """Names of a table's columns; of JSON lines, which have no header, the keys of all lines. Raises as read_records"""
    with _opened(files, name) as (kind, file, where):
        if kind == "parquet":
            with _parquet(file, where) as table:
                return list(table.schema_arrow.names)
        if kind in ("jsonl", "ndjson"):
            return list(dict.fromkeys(key for record in _read_json_lines(file, where, None) for key in record.values))
        return _csv_rows(file, where, _delimiter(kind, delimiter))[0]


def decoded_lines(file: BinaryIO, where: str) -> Iterator[str]:
    """The lines of a UTF-8 file with their endings, without a byte order mark; SourceError names a faulty line."""
    for number, raw in enumerate(file, start=1):
        line = raw.removeprefix(BYTE_ORDER_MARK) if number == 1 else raw
        if 0 in line:
            raise SourceError(f"{where}:{number}: not text (a NUL at byte {line.index(0)}). Save the file as UTF-8.")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{where}:{number}: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8."
            ) from error


@contextmanager
def _opened(files: Files, name: str) -> Iterator[tuple[str, BinaryIO, str]]:
    """The table's kind, its bytes, and what error texts call it."""
    kind, where = name.rpartition(".")[2].lower(), f"{files.uri}/{name}"
    if kind not in SUFFIXES:
        raise SourceError(f"{where} is no table that can be read; use {', '.join(f'.{known}' for known in SUFFIXES)}.")
    with files.open(name) as file:
        yield kind, file, where


def _delimiter(kind: str, given: str) -> str:
    return given or ("\t" if kind == "tsv" else "")


def _read_json_lines(file: BinaryIO, where: str, columns: Wanted) -> Iterator[Record]:
    for number, line in enumerate(decoded_lines(file, where), start=1):
        if line.strip():
            yield Record(number, _only(columns, _json_object(line, f"{where}:{number}")))


def _json_object(line: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{where}: not a JSON object ({error.msg} at column {error.colno}). Each line is one object, such as "
            f"{JSON_EXAMPLE}."
        ) from error
    except (RecursionError, ValueError) as error:  # nested a thousand deep, a number of thousands of digits
        raise SourceError(f"{where}: not a JSON object ({error}). Each line is one object.") from error
    if not isinstance(value, dict):
        raise SourceError(
            f"{where}: not a JSON object: {line[:80]!r}. Each line is one object, such as {JSON_EXAMPLE}."
        )
    return value  # pyright: ignore[reportUnknownVariableType]


def _read_csv(file: BinaryIO, where: str, columns: Wanted, delimiter: str) -> Iterator[Record]:
    header, rows = _csv_rows(file, where, delimiter)
    for line, cells in rows:
        if len(cells) == len(header):
            yield Record(line, _only(columns, dict(zip(header, cells, strict=True))))
        else:
            seen = " | ".join(cells)[:120]
            yield Record(line, fault=f"{len(cells)} cells, the header names {len(header)}: {seen}")


def _csv_rows(file: BinaryIO, where: str, delimiter: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header, and the cells of each row with the line where it starts."""
    lines = decoded_lines(file, where)
    first = next(lines, "")
    if not first.strip():
        raise SourceError(f"{where} is empty: its first line must name the columns.")
    delimiter = delimiter or max(DELIMITERS, key=first.count)
    rows = _csv_cells(_chain(first, lines), where, delimiter)
    _, header = next(rows)
    return _header([cell.strip() for cell in header], where), rows


def _csv_cells(lines: Iterator[str], where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:  # an empty line is no row
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise SourceError(
            f'{where}:{line}: not CSV ({error}). A cell with a quote in it is written "5"" heel", in quotes itself.'
        ) from error


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(names: list[str], where: str) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{where}:1: several columns are called {', '.join(map(repr, twice))}. Rename all but one.")
    return names


def _read_parquet(file: BinaryIO, where: str, columns: Wanted) -> Iterator[Record]:
    row = 0
    with _parquet(file, where) as table:
        names = [name for name in table.schema_arrow.names if columns is None or name in columns]
        for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=names, use_threads=False):
            for values in batch.to_pylist():
                row += 1
                yield Record(row, values)


@contextmanager
def _parquet(file: BinaryIO, where: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:  # buffered: of a large row group only the page at hand is in memory
        yield pq.ParquetFile(file, buffer_size=PARQUET_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{where} is not readable Parquet: {str(error).splitlines()[0]}") from error


def _only(columns: Wanted, values: Mapping[str, Any]) -> Mapping[str, Any]:
    return values if columns is None else {name: value for name, value in values.items() if name in columns}
