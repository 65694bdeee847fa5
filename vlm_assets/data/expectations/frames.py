"""Columns for the suites, computed in Arrow: a million pictures stay below a gigabyte, and no picture is loaded."""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false, reportAttributeAccessIssue=false

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def picture_frame(rows: Path, columns: Sequence[str]) -> pd.DataFrame:
    """One row per picture: `columns` as they stand, and what is counted of its captions, slots and sides."""
    table = pq.read_table(rows, columns=[*dict.fromkeys([*columns, "width", "height", "captions", "slots"])])
    frame = as_frame(table.select(list(columns)))
    counts = pc.fill_null(pc.list_value_length(table["captions"]), 0).to_numpy()
    slot_sets = [0 if slots == "[]" else len(json.loads(slots)) for slots in table["slots"].to_pylist()]
    frame["caption_count"] = counts
    frame["slots_fit"] = (pd.Series(slot_sets) == 0) | (pd.Series(slot_sets) == counts)
    frame["shorter_side"] = pc.min_element_wise(table["width"], table["height"]).to_numpy()
    return frame


def caption_frame(rows: Path) -> pd.DataFrame:
    """One row per caption, with its picture and its number of words."""
    table = pq.read_table(rows, columns=["image_id", "captions"])
    exploded = explode(table, "captions", "caption")
    words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(exploded["caption"])))
    return as_frame(exploded.append_column("words", words))


def explode(table: pa.Table, column: str, name: str) -> pa.Table:
    """One row per item of the lists in `column`, called `name`, with the image id of its row."""
    lists = table[column].combine_chunks()
    ids = table["image_id"].take(pc.list_parent_indices(lists))
    return pa.table({"image_id": ids, name: pc.list_flatten(lists)})


def as_frame(table: pa.Table) -> pd.DataFrame:
    """A pandas frame in which equal strings are one object, and the Arrow table is given back piece by piece."""
    return table.to_pandas(split_blocks=True, self_destruct=True)


def column_of_packs(directory: Path, prefix: str, column: str) -> set[str]:
    """The values of one column of `<prefix>-*.parquet`; the pictures beside it are not read."""
    files = sorted(directory.glob(f"{prefix}-*.parquet"))
    return {value for file in files for value in pq.read_table(file, columns=[column])[column].to_pylist()}
