"""One shard file from start to end: what a worker does, in this process, in another one, or on another machine."""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlm_assets.data.captions import CaptionTokenizer
from vlm_assets.data.encoding import SUFFIX, Encoding, encode_pixels
from vlm_assets.data.shard_plan import ShardTask
from vlm_assets.data.tables import SHARD, with_features
from vlm_assets.data.workers import in_order
from vlm_assets.disk import NO_ROOM
from vlm_assets.errors import SourceError, StoreError
from vlm_serving.errors import PictureError
from vlm_serving.preprocessing import PreprocessingContract, decode_for_model

READ_ROWS = 8  # pictures of the snapshot in memory at once
INFO = b"vlm"  # the key of a shard file's own facts: contract, split, encoding, token counts
TEXT_LEAVES = ("image_id", "image.path", "captions.list.element", "input_ids.list.element.list.element", "slots")
WRITER_OPTIONS: dict[str, Any] = {
    # pictures are compressed already, and raw ones are to be read at the speed of memory
    "compression": {"image.bytes": "none", **dict.fromkeys(TEXT_LEAVES, "zstd")},
    "use_dictionary": ["slots"],
    "write_statistics": ["image_id"],
}


@dataclass(frozen=True)
class ShardJob:
    """What all files of a set have in common. Paths must mean the same wherever a worker runs."""

    packs: tuple[Path, ...]
    directory: Path
    contract: PreprocessingContract
    tokenizer_json: str
    encoding: Encoding
    quality: int
    rows_per_group: int
    threads: int = 1  # that encode the pictures of one file; they change nothing of its bytes


Report = Callable[[int], object]


def make_shard(job: ShardJob, task: ShardTask, report: Report) -> None:
    """Write one file; it appears under its name when it is whole. One that is there already is kept.

    `report` gets the number of pictures done since it was last called. Raises SourceError, StoreError, and OSError
    where there is no room.
    """
    path = job.directory / task.name
    if is_finished(path, task):
        report(task.rows.num_rows)
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(fresh, job, task, report)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        if error.errno in NO_ROOM:  # the store says how much is free, and which setting names another disk
            raise
        raise StoreError(
            f"Cannot write the shard {path}: {error}. Give write permission, or remove what is in the way, and run it "
            "again: finished shards are kept."
        ) from error
    finally:
        fresh.unlink(missing_ok=True)


def is_finished(path: Path, task: ShardTask) -> bool:
    """Whether an interrupted run left this very file behind, whole."""
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return metadata.num_rows == task.rows.num_rows


def shard_info(path: Path) -> dict[str, Any]:
    """What a shard file says of itself: contract_sha256, image_size_px, encoding, split, number, files, tokens."""
    return info_of(pq.read_metadata(path), str(path))


def info_of(footer: Any, name: str) -> dict[str, Any]:
    """The same from a footer that was read already. StoreError if it is of another kind of file."""
    metadata = footer.metadata or {}
    if INFO not in metadata:
        raise StoreError(f"{name} is not a shard of this project: its Parquet metadata lacks '{INFO.decode()}'.")
    return json.loads(metadata[INFO])


def encoded_bytes(job: ShardJob, rows: pa.Table) -> float:
    """Mean size of these pictures in a shard."""
    return float(np.mean([len(data) for _, data in _encoded(job, rows)]))


def _write(path: Path, job: ShardJob, task: ShardTask, report: Report) -> None:
    tokenizer = CaptionTokenizer(job.tokenizer_json, job.contract)
    texts = iter(task.rows.select(["captions", "slots"]).to_batches(max_chunksize=job.rows_per_group))
    with pq.ParquetWriter(path, with_features(SHARD), **WRITER_OPTIONS) as writer:
        for group in _grouped(_encoded(job, task.rows), job.rows_per_group, report):
            rows = next(texts).to_pylist()
            columns = {
                "image_id": [image_id for image_id, _ in group],
                "image": [{"bytes": data, "path": f"{name}.{SUFFIX[job.encoding]}"} for name, data in group],
                "captions": [row["captions"] for row in rows],
                "input_ids": [[tokenizer.encode(caption) for caption in row["captions"]] for row in rows],
                "slots": [row["slots"] for row in rows],
            }
            writer.write_table(pa.table(columns, schema=SHARD))
        info = {
            "contract_sha256": job.contract.sha256,
            "image_size_px": job.contract.image_size_px,
            "encoding": job.encoding,
            "split": task.split,
            "number": task.number,
            "files": task.files,
            "tokens": tokenizer.counts.to_json(),
        }
        writer.add_key_value_metadata({INFO.decode(): json.dumps(info)})


def _grouped(pictures: Iterator[tuple[str, bytes]], size: int, report: Report) -> Iterator[list[tuple[str, bytes]]]:
    group: list[tuple[str, bytes]] = []
    for picture in pictures:
        group.append(picture)
        report(1)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _encoded(job: ShardJob, rows: pa.Table) -> Iterator[tuple[str, bytes]]:
    """(image_id, encoded square) for each of the rows, in their order."""
    pictures = _pictures(job, rows)
    if job.threads == 1:
        return (_encode(job, *picture) for picture in pictures)
    return in_order(lambda picture: _encode(job, *picture), pictures, job.threads)


def _encode(job: ShardJob, image_id: str, data: bytes) -> tuple[str, bytes]:
    try:
        square = decode_for_model(data, job.contract).square
    except PictureError as error:
        raise SourceError(
            f"Picture {image_id} of the snapshot cannot be decoded: {error} The snapshot was altered since the splits "
            "were made; materialize raw_dataset and validated_splits again."
        ) from error
    return image_id, encode_pixels(square, job.encoding, job.quality)


def _pictures(job: ShardJob, rows: pa.Table) -> Iterator[tuple[str, bytes]]:
    """(image_id, file bytes) for each of the rows, in their order; a few pictures in memory at a time."""
    packs = rows.column("pack").to_numpy()
    for pack in dict.fromkeys(packs.tolist()):
        here = rows.filter(pa.array(packs == pack))
        names = dict(zip(here.column("sha256").to_pylist(), here.column("image_id").to_pylist(), strict=True))
        groups: list[int] = list(dict.fromkeys(here.column("group").to_pylist()))
        with pq.ParquetFile(job.packs[pack], pre_buffer=False, buffer_size=1 << 20) as file:
            batches = file.iter_batches(READ_ROWS, groups, columns=["sha256", "image"], use_threads=False)
            for batch in batches:
                data = batch.column("image").field("bytes")
                for place, digest in enumerate(batch.column("sha256").to_pylist()):
                    if digest in names:
                        yield names[digest], data[place].as_py()
