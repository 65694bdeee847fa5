import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.vlm_assets.data.pictures import ListSource, encoded, picture, png
from vlm_assets.data.config import SplitConfig
from vlm_assets.data.dedup import signature
from vlm_assets.data.raw import import_source
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.split import Holdout, SplitPlan
from vlm_assets.data.splits import SplitSettings, write_splits
from vlm_assets.data.tables import read_json, read_rows
from vlm_assets.errors import ConfigError, SourceError


def split(path: Path, rows: list[SourceRow], settings: SplitSettings | None = None):
    raw, out = path / "raw", path / "splits"
    raw.mkdir(parents=True)
    out.mkdir()
    import_source(ListSource(rows), raw, max_bad_fraction=1, log=lambda _: None)
    counts = write_splits(raw, out, settings or SplitConfig().settings(), lambda _: None)
    return counts, {row["captions"][0]: row for row in read_rows(out / "rows.parquet")}, out


def plain_rows(count: int) -> list[SourceRow]:
    return [SourceRow(str(seed), png(seed), captions=(f"number {seed}",)) for seed in range(count)]


def test_everything_is_split_or_dropped_by_reason(tmp_path: Path):
    small = SourceRow("small", encoded(picture(90, (20, 20))), captions=("small one",))
    flat = SourceRow("flat", encoded(Image.new("RGB", (64, 64), "navy")), captions=("flat one",))
    mute = SourceRow("mute", png(91), captions=("x",))
    wordy = SourceRow("wordy", png(92), captions=("wordy", "x" * 501), slots=({"kind": "a"}, {"kind": "b"}))
    counts, rows, out = split(tmp_path, [*plain_rows(60), small, flat, mute, wordy])
    summary = read_json(out / "summary.json")
    assert sum(counts.values()) == len(rows) == 61
    assert summary["dropped_by_reason"] == {
        "caption_too_short": 1,
        "no_caption_left": 1,
        "caption_too_long": 1,
        "too_small": 1,
        "no_content": 1,
    }
    assert rows["wordy"]["captions"] == ["wordy"]
    assert json.loads(rows["wordy"]["slots"]) == [{"kind": "a"}], "slots go with their caption"
    assert len(read_rows(out / "dropped.parquet")) == 5


def test_near_duplicates_share_cluster_and_split_and_are_listed(tmp_path: Path):
    copies = [
        SourceRow(f"copy {seed}", encoded(picture(seed), "JPEG", quality=90), captions=(f"copy {seed}",))
        for seed in range(30)
    ]
    _, rows, out = split(tmp_path, [*plain_rows(60), *copies])
    assert len(read_rows(out / "near_duplicates.parquet")) == 30
    for seed in range(30):
        original, copy = rows[f"number {seed}"], rows[f"copy {seed}"]
        assert (original["split"], original["cluster"]) == (copy["split"], copy["cluster"])
    assert read_json(out / "summary.json")["naive_split"]["leaked_test_rows"] > 0


def test_copies_with_equal_thumbnails_are_counted_and_shown(tmp_path: Path):
    """One pixel differs by one level, which no thumbnail shows."""
    copies: list[SourceRow] = []
    for seed in range(8):
        image = picture(seed)
        image.putpixel((0, 0), tuple(level ^ 1 for level in image.getpixel((0, 0))))
        copies.append(SourceRow(f"copy {seed}", encoded(image), captions=(f"copy {seed}",)))
    _, rows, out = split(tmp_path, [*plain_rows(60), *copies])
    pairs = read_rows(out / "near_duplicates.parquet")
    assert read_json(out / "summary.json")["near_duplicate_pairs"] == len(pairs) == 8
    assert all(pair["distance"] == 0 for pair in pairs)
    assert all(rows[f"number {seed}"]["split"] == rows[f"copy {seed}"]["split"] for seed in range(8))
    with Image.open(out / "near_duplicates.webp") as gallery:
        assert gallery.width > 5 * 170, "five pairs a line"


def test_thumbnails_stand_in_the_order_of_the_pictures(tmp_path: Path):
    small = SourceRow("small", encoded(picture(90, (20, 20))), captions=("small one",))
    _, rows, out = split(tmp_path, [small, *plain_rows(60)])
    thumbs = np.load(out / "thumbnails.npy")
    assert [signature(picture(seed)).tolist() for seed in range(60)] == thumbs.tolist()
    assert list(rows) == [f"number {seed}" for seed in range(60)]


def test_a_row_that_ties_two_splits_goes_with_its_caption_and_the_picture_stays(tmp_path: Path):
    given = [replace(row, split=("test", "val", "train")[n % 3]) for n, row in enumerate(plain_rows(60))]
    again = SourceRow("again", png(0), captions=("number 0", "a new one"), split="train", group="g")
    _, rows, out = split(tmp_path, [*given, again, replace(again, source_row="other", captions=("other",), split="")])
    assert (rows["number 0"]["split"], rows["number 0"]["captions"]) == ("test", ["number 0", "other"])
    assert (rows["number 0"]["source_rows"], rows["number 0"]["copies"]) == (["0", "other"], 2)
    assert (rows["number 0"]["groups"], rows["number 0"]["given_splits"]) == (["", "g"], ["test", ""])
    (gone,) = read_rows(out / "dropped.parquet")
    assert (gone["source_row"], gone["caption"], gone["reason"]) == ("again", "number 0", "would_tie_splits")
    assert gone["detail"] == "same picture, near duplicate or group of rows in test and train"


def test_a_picture_of_which_every_row_ties_two_splits_is_one_finding(tmp_path: Path):
    given = [replace(row, split=("test", "val", "train")[n % 3]) for n, row in enumerate(plain_rows(60))]
    copy = encoded(picture(0), "JPEG", quality=90)
    copies = [SourceRow(f"copy {n}", copy, captions=(f"copy {n}",), split="train") for n in range(3)]
    _, rows, out = split(tmp_path, [*given, *copies])
    assert len(rows) == 60
    (gone,) = read_rows(out / "dropped.parquet")
    assert (gone["source_row"], gone["caption"], gone["reason"]) == ("copy 0", "", "would_tie_splits")


def contradicting() -> list[SourceRow]:
    """A picture called two things, and a near duplicate of another with another name."""
    return [
        *(replace(row, captions=(f"garment {n}",)) for n, row in enumerate(plain_rows(60))),
        SourceRow("again", png(0), captions=("some shoes",)),
        SourceRow("copy", encoded(picture(1), "JPEG", quality=60), captions=("handbag",)),
        SourceRow("fine", encoded(picture(2), "JPEG", quality=60), captions=("the garments",)),
    ]


def test_contradictions_are_flagged_whether_copies_are_exact_or_near(tmp_path: Path):
    _, rows, out = split(tmp_path, contradicting())
    flagged = {name for name, row in rows.items() if "conflicting_captions" in row["flags"]}
    assert flagged == {"garment 0", "garment 1", "handbag"}
    details = [row["detail"] for row in read_rows(out / "flagged.parquet") if row["reason"] == "conflicting_captions"]
    assert details == ["'garment 0' (0) and 'some shoes' (again)", *["'garment 1' (1) and 'handbag' (copy)"] * 2]


def test_contradictions_drop_where_the_config_says_so_and_move_nothing_else(tmp_path: Path):
    _, before, _ = split(tmp_path / "flagged", contradicting())
    settings = SplitConfig(drop_flagged=["conflicting_captions"]).settings()
    _, rows, out = split(tmp_path / "dropped", contradicting(), settings)
    assert read_json(out / "summary.json")["dropped_by_reason"] == {"conflicting_captions": 3}
    assert before.keys() - rows.keys() == {"garment 0", "garment 1", "handbag"}
    assert all(row["split"] == before[name]["split"] for name, row in rows.items())


def test_held_out_values_get_their_own_split_and_are_named(tmp_path: Path):
    roles = [f"role{number}" for number in range(40)]
    rows = [
        SourceRow(f"{seed}", png(seed), captions=(f"number {seed}",), slots=({"role": roles[seed % 40], "gender": ""},))
        for seed in range(120)
    ]
    settings = SplitSettings(plan=SplitPlan(holdouts=(Holdout("unseen_role", ("role",), 0.2),)))
    counts, table, out = split(tmp_path, rows, settings)
    held = {values["role"] for values in read_json(out / "summary.json")["held_out_values"]["unseen_role"]}
    assert held and counts["test_unseen_role"] == 3 * len(held)
    for row in table.values():
        assert (json.loads(row["slots"])[0]["role"] in held) == (row["split"] == "test_unseen_role")


def test_holdouts_on_slots_that_nobody_declares_are_left_out(tmp_path: Path):
    counts, _, _ = split(tmp_path, plain_rows(60))
    assert set(counts) == {"train", "val", "test"}


def test_a_source_without_val_is_told_how_to_get_one(tmp_path: Path):
    rows = [replace(row, split="test" if n % 4 == 0 else "train") for n, row in enumerate(plain_rows(60))]
    with pytest.raises(ConfigError, match=r"the source gives train 45, val 0, test 15 .* Set val_of_given_train"):
        split(tmp_path / "none", rows)
    counts, _, _ = split(tmp_path / "some", rows, SplitSettings(plan=SplitPlan(val_of_given_train=0.2)))
    assert counts["test"] == 15
    assert counts["val"] > 0


def test_an_empty_split_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"Split '\w+' is empty: 3 pictures fell into train \d.* with seed 0"):
        split(tmp_path, plain_rows(3))


def test_nothing_left_is_refused(tmp_path: Path):
    flat = [SourceRow("a", encoded(Image.new("RGB", (64, 64), "navy")), captions=("flat",))]
    with pytest.raises(SourceError, match="No picture is left of 1: no_content 1"):
        split(tmp_path, flat)


def test_plots_are_small(tmp_path: Path):
    _, _, out = split(tmp_path, plain_rows(60))
    for name in ("split_balance.png", "caption_lengths.png"):
        assert 1000 < (out / name).stat().st_size < 60_000
