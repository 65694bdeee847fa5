"""Columns for the suites, computed in Arrow: a million pictures stay below a gigabyte, and no picture is loaded."""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false, reportAttributeAccessIssue=false

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray


def picture_frame(rows: Path, columns: Sequence[str]) -> pd.DataFrame:
    """One row per picture: `columns` as they stand, and what is counted of its captions, slots and sides."""
    frame = pd.DataFrame({name: _column(rows, name).to_pandas() for name in columns})
    frame["caption_count"] = pc.fill_null(pc.list_value_length(_column(rows, "captions")), 0).to_numpy()
    slot_sets = _slot_sets(_column(rows, "slots"))
    frame["slots_fit"] = (slot_sets == 0) | (slot_sets == frame["caption_count"])
    frame["shorter_side"] = pc.min_element_wise(_column(rows, "width"), _column(rows, "height")).to_numpy()
    return frame


def _column(path: Path, name: str) -> pa.ChunkedArray:
    """One column of a file. What Arrow held for the one before goes back to the system first, or it adds up."""
    pa.default_memory_pool().release_unused()
    return pq.read_table(path, columns=[name])[name]


def _slot_sets(slots: pa.ChunkedArray) -> NDArray[np.int32]:
    """For how many captions each picture's slots are declared."""
    counts = np.zeros(len(slots), dtype=np.int32)
    declared = np.flatnonzero(pc.not_equal(slots, "[]").to_numpy(zero_copy_only=False))
    for row in declared:
        counts[row] = len(json.loads(slots[int(row)].as_py()))
    return counts


def caption_frame(rows: Path) -> pd.DataFrame:
    """One row per caption, with its picture and its number of words."""
    lists = _column(rows, "captions").combine_chunks()
    ids = _column(rows, "image_id").take(pc.list_parent_indices(lists))
    captions = pc.list_flatten(lists)
    words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(captions))).to_numpy()
    return pd.DataFrame({"image_id": ids.to_pandas(), "caption": captions.to_pandas(), "words": words})


def group_frame(rows: Path) -> pd.DataFrame:
    """One row per group of a picture, with the picture and its split."""
    lists = _column(rows, "groups").combine_chunks()
    of = pc.list_parent_indices(lists)
    columns = {name: _column(rows, name).take(of).to_pandas() for name in ("image_id", "split")}
    frame = pd.DataFrame({**columns, "group": pc.list_flatten(lists).to_pandas()})
    return frame[frame["group"] != ""].drop_duplicates(ignore_index=True)


def joined(rows: Path, name: str) -> pd.Series:
    """The values of a column of lists of texts, as one text with blanks between."""
    return pc.binary_join(_column(rows, name), " ").to_pandas()


def is_packed(rows: Path, directory: Path) -> NDArray[np.bool_]:
    """Of each picture, whether a pack holds it. The pictures beside the digests are not read."""
    packs = [_column(file, "sha256") for file in sorted(directory.glob("pictures-*.parquet"))]
    held = pa.chunked_array([chunk for pack in packs for chunk in pack.chunks], pa.string())
    return pc.is_in(_column(rows, "sha256"), value_set=held).to_numpy()
