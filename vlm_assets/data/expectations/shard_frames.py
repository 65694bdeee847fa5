"""Shards as tables of what is in them: one pass over the files, a batch of pictures in memory at a time."""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false, reportAttributeAccessIssue=false

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from vlm_assets.data.shard_files import INFO
from vlm_assets.data.tables import SHARD
from vlm_serving.preprocessing import PreprocessingContract

BATCH_ROWS = 256
DECODED_ROWS = 256  # spread evenly over all pictures; decoding all would take as long as building the shards
SHAPE = ("mode", "width", "height")
COLUMNS = ("image_id", "image.bytes", "captions", "input_ids")


@dataclass(frozen=True)
class ShardFrames:
    """One row per picture, decoded picture of the sample, caption, and file."""

    pictures: pd.DataFrame
    decoded: pd.DataFrame
    captions: pd.DataFrame
    files: pd.DataFrame


def read_shards(directory: Path, contract: PreprocessingContract, unknown_token_id: int) -> ShardFrames:
    """Read all shards of a directory once. Raises nothing for faults of the data: these are for the suite to see."""
    files = sorted(directory.glob("*-[0-9]*.parquet"))
    step = max(sum(pq.read_metadata(file).num_rows for file in files) // DECODED_ROWS, 1)
    none = pa.RecordBatch.from_pylist([], schema=SHARD)  # so that the columns are there when no file is
    pictures = [_pictures(none, "")]
    captions = [_captions(none, contract, unknown_token_id)]
    decoded: list[dict[str, Any]] = []
    seen = 0
    for file in files:
        for batch in _batches(file):
            pictures.append(_pictures(batch, split_of(file)))
            captions.append(_captions(batch, contract, unknown_token_id))
            decoded += [_decoded(batch, row) for row in range(-seen % step, len(batch), step)]
            seen += len(batch)
    return ShardFrames(
        pa.concat_tables(pictures).to_pandas(),
        pd.DataFrame(decoded, columns=["image_id", *SHAPE]),
        pd.concat(captions, ignore_index=True),
        _files(files),
    )


def split_of(file: Path) -> str:
    """The split that a file belongs to: `test_unseen_role-00001.parquet` is of test_unseen_role."""
    return file.stem.rsplit("-", 1)[0]


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(file) as parquet:
        yield from parquet.iter_batches(BATCH_ROWS, columns=list(COLUMNS))


def _pictures(batch: pa.RecordBatch, split: str) -> pa.Table:
    data = batch.column("image").field("bytes")
    return pa.table(
        {
            "image_id": batch.column("image_id"),
            "split": pa.array([split] * len(batch), pa.string()),
            "image_bytes": pc.fill_null(pc.binary_length(data), 0),
            "caption_count": pc.fill_null(pc.list_value_length(batch.column("captions")), 0),
            "id_lists": pc.fill_null(pc.list_value_length(batch.column("input_ids")), 0),
        }
    )


def _captions(batch: pa.RecordBatch, contract: PreprocessingContract, unknown_token_id: int) -> pd.DataFrame:
    """One row per list of token ids; a list of none has the ids -1."""
    lists = batch.column("input_ids")
    each = pc.list_flatten(lists)
    lengths = pc.fill_null(pc.list_value_length(each), 0).to_numpy()
    ids = pc.list_flatten(each).to_numpy()
    start = np.cumsum(lengths) - lengths
    parents = pc.list_parent_indices(lists).to_numpy()
    special = np.isin(ids, [contract.bos_token_id, contract.eos_token_id, contract.pad_token_id])
    first, last = _at(ids, start, lengths, 0), _at(ids, start, lengths, -1)
    framing = (first == contract.bos_token_id).astype(int) + (last == contract.eos_token_id)
    words = np.maximum(lengths - 2, 1)
    return pd.DataFrame(
        {
            "image_id": batch.column("image_id").take(pa.array(parents)).to_numpy(zero_copy_only=False),
            "number": np.arange(len(lengths)) - np.searchsorted(parents, parents),
            "tokens": lengths,
            "first_id": first,
            "last_id": last,
            "lowest_id": _reduced(np.minimum, ids, start, lengths),
            "highest_id": _reduced(np.maximum, ids, start, lengths),
            "special_ids_inside": _summed(special, start, lengths) - framing,
            "unknown_share": (_summed(ids == unknown_token_id, start, lengths) / words).astype(np.float32),
        }
    )


def _at(ids: NDArray[Any], start: NDArray[Any], lengths: NDArray[Any], end: int) -> NDArray[Any]:
    """The first (`end` 0) or last (-1) id of each list."""
    place = start if end == 0 else start + lengths - 1
    return np.where(lengths > 0, np.append(ids, -1)[np.minimum(np.maximum(place, 0), len(ids))], -1).astype(np.int32)


def _reduced(what: np.ufunc, ids: NDArray[Any], start: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """The lowest or highest id of each list."""
    result = np.full(len(lengths), -1, dtype=np.int32)
    full = lengths > 0
    if full.any():
        result[full] = what.reduceat(ids, start[full])
    return result


def _summed(marks: NDArray[Any], start: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """How many ids of each list are marked."""
    total = np.concatenate([[0], np.cumsum(marks)])
    return (total[start + lengths] - total[start]).astype(np.int32)


def _decoded(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    """A picture's mode and size after decoding all of it; `mode` says what went wrong if that cannot be done."""
    data = batch.column("image").field("bytes")[row].as_py() or b""
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            shape = (picture.mode, *picture.size)
    except (OSError, ValueError, SyntaxError) as error:
        shape = (f"cannot be decoded: {type(error).__name__}", 0, 0)
    return {"image_id": batch.column("image_id")[row].as_py(), **dict(zip(SHAPE, shape, strict=True))}


def _files(files: list[Path]) -> pd.DataFrame:
    last_of_split = {split_of(file): file for file in files}
    rows = [_file(file, last=last_of_split[split_of(file)] == file) for file in files]
    columns = ["file", "split", "said_split", "contract_sha256", "size_mb", "size_mb_unless_last"]
    return pd.DataFrame(rows, columns=columns).astype({"size_mb_unless_last": "float64"})


def _file(file: Path, *, last: bool) -> dict[str, Any]:
    """A file by its name and size, and what it says of itself in its Parquet metadata; "" where it says nothing."""
    said = json.loads((pq.read_metadata(file).metadata or {}).get(INFO, "{}"))
    size_mb = file.stat().st_size / 1e6
    return {
        "file": file.name,
        "split": split_of(file),
        "said_split": said.get("split", ""),
        "contract_sha256": said.get("contract_sha256", ""),
        "size_mb": size_mb,
        "size_mb_unless_last": None if last else size_mb,
    }
