"""The Parquet tables of the data stage: their columns, and how pictures are packed into files and read back."""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

PACK_BYTES = 128 * 1024 * 1024
PACK_OPTIONS: dict[str, Any] = {
    # JPEG and PNG are compressed already: zstd over them saves nothing and costs three times the writing
    "compression": {"sha256": "zstd", "image.bytes": "none", "image.path": "zstd"},
    "use_dictionary": False,  # no picture is there twice
    "write_statistics": ["sha256"],
}
ROWS_AT_ONCE = 5_000  # of a table without pictures
ROWS_PER_GROUP = 256  # what a reader must hold at once: a picture of 1 MB makes 256 MB
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the layout of `datasets.Image`

RAW_ROWS = pa.schema(
    [
        ("image_id", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("slots", pa.string()),
        ("copies", pa.int32()),  # rows of the source that show exactly these pixels
        ("file_name", pa.string()),  # in the source, of the first of them
        ("source_rows", pa.list_(pa.string())),  # where all of them stand in the source
        ("row_numbers", pa.list_(pa.int64())),  # by source row: its place among all rows of the source, from 0
        ("row_captions", pa.list_(pa.list_(pa.int32()))),  # by source row: which of captions it says
        ("groups", pa.list_(pa.string())),  # by source row; "" = none
        ("given_splits", pa.list_(pa.string())),  # by source row: what the source prescribes; "" = nothing
        ("mode", pa.string()),  # of the pixels in the file, before they became RGB: L, P, RGBA, CMYK, I;16, ...
        ("exif_orientation", pa.int8()),  # 1 = upright; width and height are those after turning
        ("frames", pa.int32()),  # 1 = a still picture; of an animation the first frame is used
        ("transparent", pa.bool_()),  # white shows through
        ("file_bytes", pa.int64()),
    ]
)
PICTURES = pa.schema([("sha256", pa.string()), ("image", IMAGE)])
QUARANTINE = pa.schema([(name, pa.string()) for name in ("source_row", "file_name", "reason", "detail")])
SIGNALS = [pa.field(name, pa.float32()) for name in ("entropy_bits", "sharpness", "brightness", "contrast")]
SPLIT_ROWS = pa.schema(
    [
        *RAW_ROWS,
        *SIGNALS,
        pa.field("flags", pa.list_(pa.string())),
        pa.field("split", pa.string()),
        pa.field("cluster", pa.string()),
    ]
)
DROPPED = pa.schema(
    [(name, pa.string()) for name in ("image_id", "source_row", "file_name", "caption", "reason", "detail")]
)
FLAGGED = DROPPED.append(pa.field("pictures", pa.int32()))  # how many are concerned, of which this is an example
NEAR_DUPLICATES = pa.schema([("image_id_a", pa.string()), ("image_id_b", pa.string()), ("distance", pa.float32())])
THUMBNAILS = "thumbnails.npy"
SHARD = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", IMAGE),
        ("captions", pa.list_(pa.string())),
        ("input_ids", pa.list_(pa.list_(pa.int32()))),
        ("slots", pa.string()),
    ]
)

Row = Mapping[str, Any]


def slots_json(slots: Sequence[Mapping[str, str]]) -> str:
    """What each caption of a picture says, for the column `slots`: one object per caption, none if all are empty."""
    return json.dumps(list(slots) if any(slots) else [], ensure_ascii=False)


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[Row]) -> None:
    """Write a table, some thousand rows of it in memory at a time."""
    remaining = iter(rows)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(remaining, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read a table that fits into memory, as one dictionary per row."""
    return pq.read_table(path, columns=list(columns) if columns else None).to_pylist()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object for people and programs alike."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def pick_pictures(directory: Path, sha256s: Collection[str]) -> dict[str, bytes]:
    """File bytes of some pictures of a raw dataset; reads only the row groups that hold one."""
    wanted, found = set(sha256s), dict[str, bytes]()
    for pack in sorted(directory.glob("pictures-*.parquet")):
        with pq.ParquetFile(pack) as file:
            for group in range(file.num_row_groups):
                names: list[str] = file.read_row_group(group, columns=["sha256"]).column("sha256").to_pylist()
                if wanted.isdisjoint(names):
                    continue
                images = file.read_row_group(group, columns=["image"]).column("image")
                found |= {name: images[at].as_py()["bytes"] for at, name in enumerate(names) if name in wanted}
    return found


def stream_pictures(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (sha256, file bytes) of every picture of a raw dataset, a row group at a time."""
    for pack in sorted(directory.glob("pictures-*.parquet")):
        with pq.ParquetFile(pack) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
                for row in batch.to_pylist():
                    yield row["sha256"], row["image"]["bytes"]


class PackFile:
    """One file of pictures, in row groups that a reader can hold; only what waits for its group is in memory."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.bytes = path, 0  # bytes of the pictures taken
        self._schema = with_features(schema)
        self._writer = pq.ParquetWriter(path, self._schema, **PACK_OPTIONS)
        self._waiting: list[Row] = []

    def add(self, row: Row) -> None:
        """Take one row whose `image` is {"bytes", "path"}."""
        self._waiting.append(row)
        self.bytes += len(row["image"]["bytes"])
        if len(self._waiting) == ROWS_PER_GROUP:
            self._write()

    def close(self) -> None:
        """Write what is waiting, and the footer."""
        if self._waiting:
            self._write()
        self._writer.close()

    def abandon(self) -> None:
        """Remove the file."""
        with suppress(OSError, pa.ArrowException):  # the disk is full, and it is not to be kept
            self._writer.close()
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()


class PackWriter:
    """Writes rows with pictures to `<prefix>-00000.parquet`, `-00001`, ..., each of about PACK_BYTES of pictures."""

    def __init__(self, directory: Path, prefix: str, schema: pa.Schema, pack_bytes: int = PACK_BYTES) -> None:
        self.packs = 0
        self._directory, self._prefix, self._schema, self._pack_bytes = directory, prefix, schema, pack_bytes
        self._pack: PackFile | None = None

    def add(self, row: Row) -> None:
        """Take one row whose `image` is {"bytes", "path"}."""
        pack = self._pack = self._pack or self._open()
        pack.add(row)
        if pack.bytes >= self._pack_bytes:
            self._close()

    def __enter__(self) -> Self:
        """Nothing to prepare: the first file opens with the first row."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the last file; without a row there is an empty one, so that readers find the columns."""
        if not self.packs:
            self._pack = self._open()
        self._close()

    def _open(self) -> PackFile:
        self.packs += 1
        return PackFile(self._directory / f"{self._prefix}-{self.packs - 1:05d}.parquet", self._schema)

    def _close(self) -> None:
        if self._pack is not None:
            self._pack.close()
        self._pack = None


def with_features(schema: pa.Schema) -> pa.Schema:
    """Say to Hugging Face `datasets` which column is a picture, in the words that it writes itself."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}
