"""Pixels out of tokenized shards, a batch at a time: what captioning, the copy baseline and the gallery read."""

import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from vlm_assets.errors import StoreError

COLUMNS = ("image_id", "image", "captions", "slots")


@dataclass(frozen=True)
class PictureBatch:
    """Rows of a shard with their pixels, uint8 (B, 3, H, W); the other fields have B entries."""

    image_ids: list[str]
    pixels: NDArray[np.uint8]
    captions: list[list[str]]
    slots: list[str]


def split_files(shards: Path, split: str) -> list[Path]:
    """The files of one split in order: `<split>-00000.parquet`, …"""
    return sorted(file for file in shards.glob("*.parquet") if file.stem.rpartition("-")[0] == split)


def split_names(shards: Path) -> list[str]:
    """Names of the splits that a directory of shards holds, sorted."""
    return sorted({file.stem.rpartition("-")[0] for file in shards.glob("*-*.parquet")})


def count_rows(files: Sequence[Path], limit: int = 0) -> int:
    """Rows in `files`, from the footers alone; at most `limit` unless that is 0."""
    rows: int = sum(pq.read_metadata(file).num_rows for file in files)
    return min(rows, limit) if limit else rows


@dataclass(frozen=True)
class Texts:
    """Captions and slots (JSON, one list per picture) of the training split, in the shards' order; no pixels."""

    captions: list[list[str]]
    slots: list[str]


def read_texts(files: Sequence[Path]) -> Texts:
    """The words of `files`."""
    rows: dict[str, list[Any]] = {"captions": [], "slots": []}
    for file in files:
        for name, column in pq.read_table(file, columns=list(rows)).to_pydict().items():
            rows[name] += column
    return Texts(rows["captions"], rows["slots"])


def picture_batches(files: Sequence[Path], batch_size: int, limit: int = 0) -> Iterator[PictureBatch]:
    """Read `files` in order, `batch_size` rows at a time, the first `limit` rows in all (0: every row).

    Raises StoreError if a picture cannot be decoded: shards hold only pictures that were decoded before.
    """
    left = count_rows(files, limit)
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=batch_size, columns=list(COLUMNS)):
            if left <= 0:
                return
            rows: dict[str, list[Any]] = batch.slice(0, left).to_pydict()
            left -= len(rows["image_id"])
            pixels = [
                _decode(row["bytes"], name, file) for row, name in zip(rows["image"], rows["image_id"], strict=True)
            ]
            yield PictureBatch(rows["image_id"], np.stack(pixels), rows["captions"], rows["slots"])


def pick_pictures(files: Sequence[Path], image_ids: Collection[str]) -> dict[str, bytes]:
    """The encoded pictures of `image_ids`, as they lie in the shards; ids that are not there are left out."""
    wanted, found = set(image_ids), dict[str, bytes]()
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=256, columns=["image_id", "image"]):
            if len(found) == len(wanted):
                return found
            names: list[str] = batch.column("image_id").to_pylist()
            for row, name in enumerate(names):
                if name in wanted:
                    found[name] = batch.column("image")[row].as_py()["bytes"]
    return found


def _decode(data: bytes, image_id: str, file: Path) -> NDArray[np.uint8]:
    """PNG bytes -> uint8 (3, H, W)."""
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise StoreError(
            f"Picture {image_id} in {file.name} cannot be decoded ({error}). The shards are damaged: "
            "delete that artifact and materialize tokenized_shards again."
        ) from error
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)
