"""Captioning a split: right pixels, right order, right batches, clear errors."""

import pytest

from tests.unit.vlm_assets.evaluation.shards import ColourCaptioner, plain_png, square, write_split
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.evaluation.pictures import count_rows, pick_pictures, picture_batches, split_files, split_names
from vlm_assets.evaluation.predict import CAPTION_SCHEMA, caption_split

ROWS = [square("red"), square("green"), square("blue"), square("black"), square("white")]


def test_captions_come_in_the_order_of_the_shards_with_all_columns(tmp_path):
    files = write_split(tmp_path, "test", ROWS, rows_per_file=2)
    table = caption_split(ColourCaptioner(), files, 2, lambda _: None)
    assert table.schema == CAPTION_SCHEMA
    assert table["image_id"].to_pylist() == ["red+0", "green+0", "blue+0", "black+0", "white+0"]
    assert table["caption"].to_pylist() == [f"a {name} square" for name in ("red", "green", "blue", "black", "white")]
    assert table["references"][0].as_py() == ["a red square", "one red square on its own"]
    assert table["slots"][1].as_py() == '[{"colour": "green"}, {"colour": "green"}]'
    assert table["brightness"].to_pylist()[3:] == pytest.approx([10 / 255, 250 / 255])


def test_the_captioner_sees_uint8_batches(tmp_path):
    captioner = ColourCaptioner()
    caption_split(captioner, write_split(tmp_path, "test", ROWS), 2, lambda _: None)
    assert captioner.batches == [(2, 3, 32, 32), (2, 3, 32, 32), (1, 3, 32, 32)]


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_a_limit_takes_the_first_rows_across_files(tmp_path, limit):
    files = write_split(tmp_path, "test", ROWS, rows_per_file=2)
    table = caption_split(ColourCaptioner(), files, 3, lambda _: None, limit=limit)
    assert table["image_id"].to_pylist() == [row["image_id"] for row in ROWS[:limit]]


def test_progress_ends_with_all_pictures(tmp_path):
    lines = []
    caption_split(ColourCaptioner(), write_split(tmp_path, "test", ROWS), 2, lines.append, label="candidate on test")
    assert lines[-1].startswith("candidate on test  100% 5/5 pictures")


def test_an_empty_split_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Nothing to caption for val: the split has 0 pictures"):
        caption_split(ColourCaptioner(), split_files(tmp_path, "val"), 2, lambda _: None, label="val")


def test_a_damaged_picture_names_itself_and_its_file(tmp_path):
    row = square("red")
    row["image"]["bytes"] = plain_png((1, 2, 3))[:40]
    files = write_split(tmp_path, "test", [row])
    with pytest.raises(StoreError, match=r"Picture red\+0 in test-00000.parquet cannot be decoded"):
        list(picture_batches(files, 4))


def test_splits_are_told_apart_by_their_whole_name(tmp_path):
    write_split(tmp_path, "test", ROWS[:1])
    write_split(tmp_path, "test_unseen-role", ROWS[1:4], rows_per_file=1)
    assert split_names(tmp_path) == ["test", "test_unseen-role"]
    assert [file.name for file in split_files(tmp_path, "test")] == ["test-00000.parquet"]
    assert count_rows(split_files(tmp_path, "test_unseen-role")) == 3


def test_pictures_are_picked_by_id(tmp_path):
    files = write_split(tmp_path, "test", ROWS, rows_per_file=2)
    found = pick_pictures(files, ["white+0", "green+0", "nobody"])
    assert found == {"green+0": plain_png((30, 160, 60)), "white+0": plain_png((250, 250, 250))}


def test_the_real_captioner_has_the_interface(tmp_path):
    from tests.tiny import tiny_bundle
    from vlm_serving.bundle import open_bundle
    from vlm_serving.captioner import Captioner
    from vlm_serving.generation import GenerationOptions

    bundle = tiny_bundle(tmp_path / "bundle", generation=GenerationOptions(max_new_tokens=5, num_beams=2))
    captioner = Captioner(open_bundle(bundle), device="cpu", threads=1)
    files = write_split(tmp_path, "test", ROWS)
    table = caption_split(captioner, files, 4, lambda _: None)
    assert table.num_rows == len(ROWS)
    assert all(0 <= value <= 1 for value in table["confidence"].to_pylist())
    assert all(1 <= value <= 5 for value in table["token_count"].to_pylist())
