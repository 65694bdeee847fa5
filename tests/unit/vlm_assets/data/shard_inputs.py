"""A raw snapshot and its splits, written straight from pictures: what shards are made of."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vlm_assets.data.tables import PICTURES, SPLIT_ROWS, PackWriter, write_json, write_rows

SPLITS = ("train", "train", "train", "val", "test", "test_unseen_role", "train", "train")


def write_inputs(
    path: Path, pictures: Sequence[bytes], captions: Sequence[Sequence[str]], pack_bytes: int = 64 * 1024
) -> tuple[Path, Path]:
    """Write `raw` and `splits` below `path`; returns both. Every ninth picture of the snapshot is in no split."""
    raw, splits = path / "raw", path / "splits"
    raw.mkdir(parents=True)
    splits.mkdir()
    rows = []
    with PackWriter(raw, "pictures", PICTURES, pack_bytes) as packs:
        for number, (data, texts) in enumerate(zip(pictures, captions, strict=True)):
            sha256 = hashlib.sha256(b"%d" % number + data).hexdigest()
            packs.add({"sha256": sha256, "image": {"bytes": data, "path": f"{sha256[:16]}.png"}})
            if number % 9 != 8:
                split = SPLITS[number % len(SPLITS)]
                rows.append({"image_id": sha256[:16], "sha256": sha256, "captions": list(texts), "split": split,
                             "slots": "[]"})  # fmt: skip
    write_rows(splits / "rows.parquet", SPLIT_ROWS, sorted(rows, key=lambda row: row["sha256"]))
    write_json(splits / "summary.json", {"attribution": {"title": "made for a test"}})
    return raw, splits
