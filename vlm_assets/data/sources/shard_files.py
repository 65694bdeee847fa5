"""A data set as files: Parquet or Arrow shards, local or on S3, as `to_parquet`, `save_to_disk` and the hub write them.

Read with pyarrow as a stream: no copy in a cache, no network. Splits are told by names as Hugging Face `datasets` does
it: `data/train-00000-of-00002.parquet`, `validation/data-00000-of-00001.arrow`, `test.parquet`.
https://huggingface.co/docs/hub/datasets-file-names-and-splits
"""

# pyarrow ships no types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownParameterType=false
# pyright: reportUnknownArgumentType=false

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from vlm_assets.data.sources.base import Log, silent
from vlm_assets.data.sources.columns import SPLIT_NAMES
from vlm_assets.data.sources.files import FileInfo, Files, LocalFiles, fingerprint, inner_name
from vlm_assets.data.sources.rows import Column, Row, labels_of
from vlm_assets.errors import SourceError, UnreadableFileError
from vlm_serving.progress import Progress

BATCH_ROWS = 16  # with pictures in them
BUFFER_BYTES = 1 << 20
FEATHER_MAGIC = b"ARROW1"  # Arrow's file format; save_to_disk writes the stream format, which has none
SHARD = re.compile(r"^(?P<base>.+)-\d{5}-of-\d{5}\b")
NOT_DATA = re.compile(r"^(cache-|tmp|indices\.)")  # what `datasets` leaves beside its Arrow files


class ShardFiles:
    """Rows of all Parquet or Arrow files below a root."""

    def __init__(self, files: Files, only: str = "") -> None:
        self.files = files
        self.only = only  # one file; "" = all below the root
        self.title = (only or files.uri).rpartition("/")[2]
        self.url = ""

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of every file: pictures may lie beside the shards. On S3 nothing is downloaded."""
        return fingerprint(self.files, self._listing, log=log)

    def splits(self) -> list[str]:
        """Names of the splits in the order of their files; "" for files whose name tells none."""
        return list(dict.fromkeys(split_of_file(info.name) for info in self._shards))

    def total(self, splits: Sequence[str], log: Log = silent) -> int:
        """Rows in these splits; of Parquet only the footers are read."""
        names = self._names(splits)
        progress = Progress("count", len(names), log, "files")
        count = 0
        for name in names:
            count += self._count(name)
            progress.advance()
        progress.done()
        return count

    def columns(self) -> dict[str, Column]:
        """Columns of the first file."""
        with self._schema(self._shards[0].name) as schema:
            said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
            features = said.get("info", {}).get("features", {})
            return {field.name: Column(str(field.type), labels_of(features.get(field.name))) for field in schema}

    def rows(self, splits: Sequence[str], columns: Sequence[str]) -> Iterator[Row]:
        """Stream the rows of these splits with these columns, file by file."""
        for name in self._names(splits):
            split = split_of_file(name)
            for number, values in enumerate(self._read(name, columns), start=1):
                yield Row(f"{name}:{number}", split, values)

    def read(self, path: str) -> bytes:
        """A picture that a row gives by its path, relative to the root."""
        return self.files.read(path.removeprefix(f"{self.files.uri}/"))

    @property
    def found(self) -> bool:
        """Whether there are any such files."""
        return bool(self._shards)

    @cached_property
    def _listing(self) -> list[FileInfo]:
        return [info for info in self.files.list(self.only) if self.only in ("", info.name)]

    @cached_property
    def _shards(self) -> list[FileInfo]:
        data = [info for info in self._listing if info.name.endswith((".parquet", ".arrow"))]
        return [info for info in data if not NOT_DATA.match(info.name.rpartition("/")[2])]

    def _names(self, splits: Sequence[str]) -> list[str]:
        return [info.name for info in self._shards if split_of_file(info.name) in splits]

    def _count(self, name: str) -> int:
        import pyarrow.parquet as pq

        with self._open(name) as file:
            if name.endswith(".parquet"):
                return pq.ParquetFile(file).metadata.num_rows
            return sum(batch.num_rows for batch in _arrow_batches(file))

    def _read(self, name: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        import pyarrow.parquet as pq

        with self._open(name) as file:
            if name.endswith(".parquet"):
                # buffered: of a large row group only the page at hand is in memory
                table = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
                _check_same_columns(self._where(name), columns, table.schema_arrow.names)
                for batch in table.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
                    yield from batch.to_pylist()
                return
            for batch in _arrow_batches(file):
                _check_same_columns(self._where(name), columns, batch.schema.names)
                chosen = batch.select(list(columns))
                for start in range(0, chosen.num_rows, BATCH_ROWS):
                    yield from chosen.slice(start, BATCH_ROWS).to_pylist()

    @contextmanager
    def _schema(self, name: str) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with self._open(name) as file:
            yield pq.ParquetFile(file).schema_arrow if name.endswith(".parquet") else _arrow_reader(file).schema

    @contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        import pyarrow as pa

        try:
            with self.files.open(name) as file:
                if isinstance(self.files, LocalFiles) and name.endswith(".arrow"):  # a batch may be gigabytes
                    with pa.memory_map(str(self.files.root / name)) as mapped:
                        yield mapped
                else:
                    yield file
        except UnreadableFileError as error:  # a shard is not a row to put aside
            raise SourceError(str(error)) from error
        except (pa.ArrowException, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise SourceError(f"{self._where(name)} is not readable: {reason}") from error

    def _where(self, name: str) -> str:
        return f"{self.files.uri}/{inner_name(name)}"


def split_of_file(name: str) -> str:
    """The split that a file's name tells: of its shard, or else its folder, or else a word in its name; "" if none."""
    *folders, file = name.split("/")
    shard = SHARD.match(file)
    if shard and shard["base"] != "data" and not _keyword(shard["base"]):
        return shard["base"]
    words = [shard["base"] if shard else "", *reversed(folders), file.rpartition(".")[0]]
    return next((found for word in words if (found := _keyword(word))), "")


def _keyword(text: str) -> str:
    words = re.split(r"[^a-zA-Z0-9]+", text)
    return next((word for word in words if word.lower() in SPLIT_NAMES), "")


def _arrow_reader(file: Any) -> Any:
    import pyarrow as pa

    magic = file.read(len(FEATHER_MAGIC))
    file.seek(0)
    return pa.ipc.open_file(file) if magic == FEATHER_MAGIC else pa.ipc.open_stream(file)


def _arrow_batches(file: Any) -> Iterator[Any]:
    reader = _arrow_reader(file)
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _check_same_columns(where: str, columns: Sequence[str], found: Sequence[str]) -> None:
    missing = [column for column in columns if column not in found]
    if missing:
        raise SourceError(
            f"{where} has no column {', '.join(map(repr, missing))}, which the first file has; it has "
            f"{', '.join(found)}. Write all files with the same columns."
        )
