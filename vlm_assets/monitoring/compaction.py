"""From what serving wrote, replica by replica and minute by minute, to one checked table of a window's requests."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlm_assets.errors import SourceError

ROWS = "rows.parquet"
SUMMARY = "summary.json"
SCHEMA = pa.schema(
    [
        ("time_unix_s", pa.float64()),
        ("request_id", pa.string()),
        ("model_version", pa.string()),
        ("caption", pa.string()),
        ("confidence", pa.float64()),
        ("token_count", pa.int32()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("embedding", pa.list_(pa.float32())),
        ("latency_ms", pa.float64()),
        ("picture_sha256", pa.string()),
        ("thumbnail", pa.binary()),
        ("colourfulness", pa.float64()),
        ("sharpness", pa.float64()),
        ("entropy_bits", pa.float64()),
    ]
)
# A small JPEG, where serving keeps them, and what replicas of an earlier version do not measure.
OPTIONAL = {"thumbnail", "colourfulness", "sharpness", "entropy_bits"}


@dataclass(frozen=True)
class Window:
    """A window's requests as a table of SCHEMA, oldest first, and what was left out, by reason."""

    table: Any
    dropped: dict[str, int]

    def fingerprint(self) -> str:
        """Hex digest of which requests these are and what was left out: equal windows are compacted once."""
        ids = [*self.table["request_id"].to_pylist(), json.dumps(self.dropped, sort_keys=True)]
        return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def read_window(directory: Path, since_unix_s: float, max_rows: int) -> Window:
    """The rows of a serving log after a time, at most the `max_rows` latest; none if nothing was served yet."""
    from vlm_serving.request_log import read_request_log

    return select_window(checked(read_request_log(directory, since_unix_s), str(directory)), max_rows)


def checked(table: Any, where: str) -> Any:
    """The table with exactly the columns and types of SCHEMA; SourceError says which column is missing or wrong."""
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise SourceError(
            f"The request log in {where} lacks {', '.join(missing)}; "
            f"it has {', '.join(table.column_names) or 'no columns'}. "
            "It was written by another version of the serving application: move it away or set VLM_REQUEST_LOG."
        )
    try:
        return table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(f"The request log in {where} holds values of another type: {error}. Move it away.") from error


def select_window(table: Any, max_rows: int) -> Window:
    """Drop incomplete rows, rows written twice (equal request id) and what exceeds `max_rows`, in turn."""
    complete = table.filter(_complete(table))
    ordered = complete.sort_by([(name, "ascending") for name in ("time_unix_s", "request_id")])
    unique = ordered.take(_first_of_each(ordered["request_id"].to_pylist()))
    kept = unique.slice(max(0, unique.num_rows - max_rows)).combine_chunks()
    dropped = {
        "incomplete": table.num_rows - complete.num_rows,
        "written twice": ordered.num_rows - unique.num_rows,
        "over max_rows": unique.num_rows - kept.num_rows,
    }
    return Window(kept, dropped)


def write_window(window: Window, path: Path) -> dict[str, int]:
    """Write the rows and their summary into `path`; returns the counts."""
    pq.write_table(window.table, path / ROWS, compression="zstd")
    times = window.table["time_unix_s"].to_pylist()
    summary: dict[str, Any] = {
        "rows": window.table.num_rows,
        "dropped": window.dropped,
        "first_unix_s": times[0] if times else None,
        "last_unix_s": times[-1] if times else None,
        "model_versions": dict(Counter(window.table["model_version"].to_pylist())),
    }
    (path / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return {"rows": window.table.num_rows}


def _complete(table: Any) -> Any:
    """True where nothing that the comparison reads is null or not finite."""
    good = np.ones(table.num_rows, dtype=bool)
    for column in [name for name in SCHEMA.names if name not in OPTIONAL]:
        good &= table[column].is_valid().to_numpy()
    for column in ("time_unix_s", "confidence", "brightness", "contrast"):
        good &= np.isfinite(table[column].to_numpy())
    return pa.array(good & _usable_lists(table["embedding"]))


def _usable_lists(column: Any) -> NDArray[np.bool_]:
    """True for the lists that hold something and only finite numbers; null numbers read as NaN."""
    lists = column.combine_chunks()
    usable = lists.value_lengths().fill_null(0).to_numpy() > 0
    finite = np.isfinite(lists.flatten().to_numpy(zero_copy_only=False))
    usable[lists.value_parent_indices().to_numpy()[~finite]] = False
    return usable


def _first_of_each(values: Sequence[str]) -> Any:
    first: dict[str, int] = {}
    for row, value in enumerate(values):
        first.setdefault(value, row)
    return pa.array(first.values(), pa.int64())
