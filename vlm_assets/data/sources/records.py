"""Rows of a table in a file: CSV, TSV, JSON lines or Parquet, streamed, with line numbers for whoever repairs it."""

# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from vlm_assets.data.sources.files import Files
from vlm_assets.errors import SourceError

DELIMITERS = (",", ";", "\t", "|")  # Excel writes ";" where the comma is the decimal point
PARQUET_BATCH_ROWS = 256
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # as Windows editors leave it
JSON_EXAMPLE = '{"file_name": "a.png", "text": "a red coat"}'


@dataclass(frozen=True)
class Record:
    """One row of a table. A row that is not like the header says so in `fault` and has no values."""

    line: int  # of the file, where it starts; in Parquet, which has no lines, the number of the row; from 1
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fault: str = ""


def read_records(files: Files, name: str, delimiter: str = "") -> Iterator[Record]:
    """Stream the rows of a table; its kind is told by the suffix.

    `delimiter` is that of CSV; "" = a tab for .tsv, else whichever the header has most of. Raises SourceError with
    file and line on what is not UTF-8, not JSON, not CSV or not Parquet.
    """
    suffix = name.rpartition(".")[2].lower()
    where = f"{files.uri}/{name}"
    readers: dict[str, Callable[[BinaryIO, str], Iterator[Record]]] = {
        "csv": lambda file, where: _read_csv(file, where, delimiter),
        "tsv": lambda file, where: _read_csv(file, where, delimiter or "\t"),
        "jsonl": _read_json_lines,
        "ndjson": _read_json_lines,
        "parquet": _read_parquet,
    }
    if suffix not in readers:
        raise SourceError(f"{where} is no table that can be read; use {', '.join(f'.{kind}' for kind in readers)}.")
    with files.open(name) as file:
        yield from readers[suffix](file, where)


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


def _read_json_lines(file: BinaryIO, where: str) -> Iterator[Record]:
    for number, line in enumerate(decoded_lines(file, where), start=1):
        if line.strip():
            yield Record(number, _json_object(line, f"{where}:{number}"))


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


def _read_csv(file: BinaryIO, where: str, delimiter: str) -> Iterator[Record]:
    lines = decoded_lines(file, where)
    first = next(lines, "")
    if not first.strip():
        raise SourceError(f"{where} is empty: its first line must name the columns.")
    reader = csv.reader(_chain(first, lines), delimiter=delimiter or max(DELIMITERS, key=first.count), strict=True)
    header: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not header:
                header = _header([cell.strip() for cell in cells], where)
            elif cells:  # an empty line is no row
                yield _record(line, header, cells)
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


def _record(line: int, header: list[str], cells: list[str]) -> Record:
    if len(cells) == len(header):
        return Record(line, dict(zip(header, cells, strict=True)))
    seen = " | ".join(cells)[:120]
    return Record(line, fault=f"{len(cells)} cells, the header names {len(header)}: {seen}")


def _read_parquet(file: BinaryIO, where: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        row = 0
        for batch in table.iter_batches(PARQUET_BATCH_ROWS):
            for values in batch.to_pylist():
                row += 1
                yield Record(row, values)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{where} is not readable Parquet: {str(error).splitlines()[0]}") from error
