"""The general pictures that blip-mini is pretrained on: OpenMoji's people outside their roles, none of the niche's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_assets.data.raw import import_source, pixel_sha256
from vlm_assets.data.shards import write_shards
from vlm_assets.data.sources.openmoji import OpenMojiSource
from vlm_assets.data.split import unit_hash
from vlm_assets.data.tables import SPLIT_ROWS, read_json, read_rows, write_json, write_rows
from vlm_serving.images import decode_picture

HELD_OUT_SHARE = 0.06  # what forgetting is measured on


def import_general(raw: Path, splits: Path, log: Callable[[str], object]) -> list[str]:
    """Import the drawings into `raw`, divide them in `splits`; returns all captions.

    A drawing with the very pixels of one in the niche is left out: it could be one of the niche's test pictures.
    """
    raw.mkdir(parents=True, exist_ok=True)
    splits.mkdir(parents=True, exist_ok=True)
    niche = {pixel_sha256(decode_picture(row.picture)) for row in OpenMojiSource("roles") if row.picture}
    import_source(OpenMojiSource("general_people"), raw, max_bad_fraction=0.0, log=log)
    rows = [divided(row) for row in read_rows(raw / "rows.parquet") if row["sha256"] not in niche]
    write_rows(splits / "rows.parquet", SPLIT_ROWS, rows)
    write_json(splits / "summary.json", read_json(raw / "summary.json"))
    return [caption for row in rows for caption in row["captions"]]


def divided(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its split, by a stable hash of the picture."""
    held_out = unit_hash(0, "general", row["sha256"]) < HELD_OUT_SHARE
    return {**row, "split": "test" if held_out else "train", "cluster": row["image_id"]}


def write_general(splits: Path, raw: Path, bundle: Path, out: Path, log: Callable[[str], object]) -> None:
    """Shards of the general pictures, in the layout of tokenized_shards."""
    out.mkdir(parents=True, exist_ok=True)
    write_shards(splits, raw, bundle, out, log)
