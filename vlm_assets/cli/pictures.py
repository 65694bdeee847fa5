"""Held-out pictures for the demo, straight from the artifacts of the run that has just ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_assets.errors import SourceError


@dataclass(frozen=True)
class HeldOut:
    """A picture that training never saw, and what people call it."""

    image_id: str
    captions: tuple[str, ...]
    picture: bytes


def held_out_pictures(splits: Path, raw: Path, count: int) -> list[HeldOut]:
    """`count` pictures of the test split, evenly spread over the ids, so the same ones in every run.

    `splits` is a validated_splits directory, `raw` the raw_dataset directory it was made from.
    """
    rows = _test_rows(splits)
    if not rows:
        raise SourceError(f"The test split in {splits} is empty: nothing to caption. Give the source more pictures.")
    chosen = [rows[index * len(rows) // count] for index in range(min(count, len(rows)))]
    wanted = {row["sha256"]: row for row in chosen}
    found = {sha256: data for sha256, data in _pictures(raw, wanted)}
    return [HeldOut(row["image_id"], tuple(row["captions"]), found[row["sha256"]]) for row in chosen]


def _test_rows(splits: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    columns = ["image_id", "sha256", "captions"]
    table = parquet.read_table(splits / "rows.parquet", columns=columns, filters=[("split", "=", "test")])
    return sorted(table.to_pylist(), key=lambda row: row["image_id"])


def _pictures(raw: Path, wanted: "dict[str, Any]") -> Iterator[tuple[str, bytes]]:
    import pyarrow.parquet as parquet

    for pack in sorted(raw.glob("pictures-*.parquet")):
        table = parquet.read_table(pack, columns=["sha256", "image"], filters=[("sha256", "in", list(wanted))])
        rows: Sequence[dict[str, Any]] = table.to_pylist()
        for row in rows:
            yield row["sha256"], row["image"]["bytes"]
