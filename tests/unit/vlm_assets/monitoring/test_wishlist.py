"""What to caption: far from the known first, doubtful before sure, no two alike, nothing that was corrected."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from tests.tiny import picture_bytes
from vlm_assets.monitoring.wishlist import spread, wish_table, wishes


def test_farthest_first_and_never_two_alike():
    known = np.zeros((3, 2), np.float32)
    candidates = np.array([[0, 0], [5, 0], [5, 0.1], [0, 4]], np.float32)
    order = spread(candidates, known, np.zeros(4), 3)
    assert [index for index, _ in order] == [2, 3, 1]
    assert order[0][1] == np.float32(np.hypot(5, 0.1))
    doubtful = spread(candidates, known, np.array([0, 0, 0, 0.9]), 1)
    assert doubtful[0][0] == 3


def test_the_list_has_thumbnails_and_leaves_out_what_was_corrected(tmp_path: Path, requests, released):
    table = requests(60, shift=3.0)
    pq.write_table(table, tmp_path / "rows.parquet")
    done = table["request_id"][0].as_py()
    listed = wishes(tmp_path, released, 5, {done}, lambda _: picture_bytes(1))
    assert len(listed) == 5
    assert done not in {one.caption_id for one in listed}
    assert listed[0].distance >= listed[-1].distance
    assert Image.open(io.BytesIO(listed[0].thumbnail)).format == "JPEG"
    text = wish_table(listed)
    assert text.count("data:image/jpeg;base64,") == 5
    assert f"`{listed[0].caption_id}`" in text
    assert "(none kept)" in wish_table(wishes(tmp_path, released, 1, set(), lambda _: None))
