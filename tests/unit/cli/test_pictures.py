"""The demo captions pictures of the test split only, the same ones every time."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from vlm_assets.cli.pictures import held_out_pictures
from vlm_assets.errors import SourceError


def write(path: Path, splits: list[str]) -> None:
    rows = [
        {"image_id": f"{i:04d}", "sha256": f"sha{i}", "captions": [f"picture {i}", "a picture"], "split": split}
        for i, split in enumerate(splits)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), path / "rows.parquet")
    for pack in (0, 1):
        pictures = [
            {"sha256": row["sha256"], "image": {"bytes": row["sha256"].encode(), "path": ""}} for row in rows[pack::2]
        ]
        parquet.write_table(pa.Table.from_pylist(pictures), path / f"pictures-{pack:05d}.parquet")


def test_evenly_spread_over_the_test_split(tmp_path: Path):
    write(tmp_path, ["train", "test", "val", "test", "test", "test_roles", "test"])
    pictures = held_out_pictures(tmp_path, tmp_path, 2)
    assert [picture.image_id for picture in pictures] == ["0001", "0004"]
    assert pictures[0].picture == b"sha1"
    assert pictures[0].captions == ("picture 1", "a picture")


def test_fewer_pictures_than_asked_for(tmp_path: Path):
    write(tmp_path, ["train", "test"])
    assert len(held_out_pictures(tmp_path, tmp_path, 10)) == 1


def test_an_empty_test_split(tmp_path: Path):
    write(tmp_path, ["train", "val"])
    with pytest.raises(SourceError, match=r"^The test split in .* is empty: nothing to caption\."):
        held_out_pictures(tmp_path, tmp_path, 10)
