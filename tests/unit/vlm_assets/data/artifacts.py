"""Small sound artifacts of the data stage, written without the stage itself, for tests of the checks to spoil."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.unit.vlm_assets.data.pictures import encoded, png
from vlm_assets.data.dedup import Thresholds
from vlm_assets.data.expectations.shards import ModelInput
from vlm_assets.data.shard_files import INFO
from vlm_assets.data.tables import (
    DROPPED,
    NEAR_DUPLICATES,
    PICTURES,
    RAW_ROWS,
    SHARD,
    SPLIT_ROWS,
    THUMBNAILS,
    write_json,
    write_rows,
)
from vlm_serving.preprocessing import PreprocessingContract

ROWS = 120
SIDE_PX = 32
BOS, EOS, PAD, UNKNOWN = 101, 102, 0, 100
CONTRACT = PreprocessingContract(SIDE_PX, BOS, EOS, PAD, max_caption_tokens=8)
MODEL = ModelInput(CONTRACT, vocabulary_size=200, unknown_token_id=UNKNOWN)
SOUND = {"entropy_bits": 7.0, "flags": []}
ATTRIBUTION = {"title": "made for a test", "text": "by nobody", "licence": "MIT"}


@dataclass
class Made:
    """What an artifact will be written from; a spoil changes it."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    others: dict[str, Any] = field(default_factory=dict[str, Any])


Spoil = Callable[[Made], object]


def rows_with(count: int = 1, **changes: Any) -> Spoil:
    """Spoil the first `count` rows."""
    return lambda made: [row.update(changes) for row in made.rows[:count]]


def summary_with(**changes: Any) -> Spoil:
    """Spoil the summary."""
    return lambda made: made.summary.update(changes)


def raw_row(number: int) -> dict[str, Any]:
    return {
        "image_id": f"{number:016x}",
        "sha256": f"{number:016x}{number:048x}",
        "width": 64,
        "height": 48,
        "format": "PNG",
        "captions": [f"picture number {number}"],
        "slots": json.dumps([{"role": f"r{number}"}]),
        "copies": 1,
        "groups": [f"g{number // 2}"],
        "given_splits": [""],
    }


def write_raw(path: Path, spoil: Spoil = lambda _: None) -> Path:
    rows = [raw_row(number) for number in range(ROWS)]
    summary = {
        "quarantined": 0,
        "skipped": 0,
        "source_rows": ROWS,
        "prescribed_split_conflicts": 0,
        "attribution": ATTRIBUTION,
    }
    made = Made(rows, summary, {"packed": [row["sha256"] for row in rows]})
    spoil(made)
    write_rows(path / "rows.parquet", filled(RAW_ROWS, made.rows), made.rows)
    pictures = [{"sha256": sha256, "image": {"bytes": png(1), "path": "1.png"}} for sha256 in made.others["packed"]]
    write_rows(path / "pictures-00000.parquet", PICTURES, pictures)
    write_json(path / "summary.json", made.summary)
    return path


def split_of(number: int) -> str:
    return "train" if number < 80 else "val" if number < 100 else "test"


def write_splits(path: Path, spoil: Spoil = lambda _: None) -> Path:
    rows = [
        {
            **raw_row(number),
            "split": split_of(number),
            "cluster": f"{number // 2:016x}",
            "entropy_bits": 7.0,
            "flags": [],
        }
        for number in range(ROWS)
    ]
    summary = {"held_out_values": {"unseen_role": [{"role": "r119"}]}, "near_duplicate_limits": asdict(Thresholds())}
    thumbs = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    made = Made(rows, summary, {"pairs": [(2, 3)], "dropped": [], "thumbs": thumbs})
    spoil(made)
    ids = [{"image_id_a": f"{a:016x}", "image_id_b": f"{b:016x}", "distance": 1.0} for a, b in made.others["pairs"]]
    gone = [{"image_id": name, "caption": "", "reason": "too_small", "detail": ""} for name in made.others["dropped"]]
    write_rows(path / "rows.parquet", filled(SPLIT_ROWS, made.rows), made.rows)
    write_rows(path / "near_duplicates.parquet", NEAR_DUPLICATES, ids)
    write_rows(path / "dropped.parquet", DROPPED, gone)
    np.save(path / THUMBNAILS, made.others["thumbs"])
    write_json(path / "summary.json", made.summary)
    return path


def shard_row(number: int, side_px: int = SIDE_PX) -> dict[str, Any]:
    blocks = np.random.default_rng(number).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    return {
        "image_id": f"{number:016x}",
        "image": {"bytes": encoded(Image.fromarray(blocks)), "path": f"{number:016x}.png"},
        "captions": [f"picture number {number}", "a picture"],
        "input_ids": [[BOS, 5, 6, EOS], [BOS, 7, EOS]],
        "slots": "[]",
        "split": split_of(number),
    }


def write_shards(path: Path, spoil: Spoil = lambda _: None) -> Path:
    """The shards in `path`/shards, and the splits that they are of in `path`/splits."""
    summary = {"contract_sha256": CONTRACT.sha256, "tokens": {"captions": 2 * ROWS, "truncated_captions": 0}}
    made = Made([shard_row(number) for number in range(ROWS)], summary)
    spoil(made)
    for part in ("splits", "shards"):
        (path / part).mkdir()
    write_splits(path / "splits")
    shards = path / "shards"
    for split in sorted({row["split"] for row in made.rows}):
        rows = [row for row in made.rows if row["split"] == split]
        info = {"contract_sha256": CONTRACT.sha256, "split": split, **made.others.get("info", {})}
        schema = SHARD.with_metadata({INFO: json.dumps(info)})
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), shards / f"{split}-00000.parquet")
    made.others.get("files", lambda _: None)(shards)
    write_json(shards / "contract.json", CONTRACT.to_json())
    write_json(shards / "summary.json", made.summary)
    return path


def filled(schema: pa.Schema, rows: list[dict[str, Any]]) -> pa.Schema:
    """The columns of the schema that the rows have: others are of no concern to these tests."""
    return pa.schema([field for field in schema if not rows or field.name in rows[0]])
