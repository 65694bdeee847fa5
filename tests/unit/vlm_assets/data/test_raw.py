import json
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.vlm_assets.data.pictures import ListSource, encoded, picture, png
from vlm_assets.data.raw import import_source
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.tables import PICTURES, PackWriter, read_json, read_rows, stream_pictures
from vlm_assets.errors import SourceError


def imported(path: Path, rows: list[SourceRow], max_bad_fraction: float = 1.0):
    lines: list[str] = []
    counts = import_source(ListSource(rows), path, max_bad_fraction=max_bad_fraction, log=lines.append)
    return counts, read_rows(path / "rows.parquet"), lines


def test_one_row_per_picture_with_its_bytes(tmp_path: Path):
    rows = [SourceRow(str(seed), png(seed), captions=(f"number {seed}",)) for seed in range(3)]
    counts, table, lines = imported(tmp_path, rows)
    assert counts == {"pictures": 3, "captions": 3, "quarantined": 0}
    assert [row["captions"] for row in table] == [["number 0"], ["number 1"], ["number 2"]]
    assert table[0]["image_id"] == table[0]["sha256"][:16]
    assert (table[0]["width"], table[0]["height"], table[0]["format"]) == (64, 48, "PNG")
    assert dict(stream_pictures(tmp_path)) == {row["sha256"]: png(seed) for seed, row in enumerate(table)}
    assert "100% 3/3 pictures" in lines[-1]


def test_equal_pixels_become_one_picture_with_all_references(tmp_path: Path):
    image = picture(1)
    first = SourceRow("a", encoded(image), captions=("a man farmer",), slots=({"gender": "man"},), group="g1")
    again = SourceRow(
        "b",
        encoded(image, "BMP"),  # another file, the same pixels
        captions=("a farmer", "a man farmer"),
        slots=({"gender": ""}, {"gender": "other"}),
        group="g2",
    )
    bound = SourceRow("c", png(2), captions=("x",), slots=({"gender": ""},), group="g2")
    _, table, _ = imported(tmp_path, [first, again, bound])
    assert len(table) == 2
    assert table[0]["captions"] == ["a man farmer", "a farmer"]
    assert json.loads(table[0]["slots"]) == [{"gender": "man"}, {"gender": ""}]
    assert table[0]["copies"] == 2
    assert table[0]["group"] == table[1]["group"], "the shared picture ties the two groups"
    assert read_json(tmp_path / "summary.json")["merged_rows"] == 1


def test_a_picture_prescribed_to_two_splits_goes_to_the_one_that_trains_less(tmp_path: Path):
    rows = [
        SourceRow("a", png(1), captions=("x",), split="train"),
        SourceRow("b", png(1), captions=("x",), split="test"),
    ]
    _, table, _ = imported(tmp_path, rows)
    assert table[0]["split"] == "test"
    assert read_json(tmp_path / "summary.json")["prescribed_split_conflicts"] == 1


def test_without_slots_the_column_is_an_empty_list(tmp_path: Path):
    _, table, _ = imported(tmp_path, [SourceRow("a", png(1), captions=("x",))])
    assert table[0]["slots"] == "[]"


def test_unusable_rows_are_put_aside_by_reason(tmp_path: Path):
    rows = [
        SourceRow("good", png(1), captions=("x",)),
        SourceRow("cut", png(2)[:200], captions=("x",)),
        SourceRow("text", b"hello", captions=("x",)),
        SourceRow("empty", b"", captions=("x",)),
        SourceRow("mute", png(3), captions=("  ",)),
        SourceRow("gone", reason="missing_picture", detail="no such file"),
    ]
    counts, _, _ = imported(tmp_path, rows)
    reasons = {row["source_row"]: row["reason"] for row in read_rows(tmp_path / "quarantine.parquet")}
    assert counts["quarantined"] == 5
    assert reasons == {
        "cut": "truncated_picture",
        "text": "not_a_picture",
        "empty": "empty_file",
        "mute": "no_caption",
        "gone": "missing_picture",
    }
    assert read_json(tmp_path / "summary.json")["quarantined_by_reason"]["truncated_picture"] == 1


def test_too_many_unusable_rows_stop_the_import(tmp_path: Path):
    rows = [SourceRow("a", png(1), captions=("x",)), SourceRow("b", reason="missing_picture", detail="no b.png.")]
    with pytest.raises(
        SourceError,
        match=r"1 of 2 rows of the source are unusable \(50\.0 %; missing_picture 1\), allowed are 5 %\. First: b",
    ):
        imported(tmp_path, rows, max_bad_fraction=0.05)


def test_nothing_usable_stops_the_import_whatever_is_allowed(tmp_path: Path):
    with pytest.raises(SourceError, match="1 of 1 rows of the source are unusable"):
        imported(tmp_path, [SourceRow("a", b"nonsense", captions=("x",))])


def test_an_empty_source_says_so(tmp_path: Path):
    with pytest.raises(SourceError, match="The source 'test' is empty: 0 pictures"):
        imported(tmp_path, [])


def test_packs_split_at_their_size_and_read_back_in_order(tmp_path: Path):
    with PackWriter(tmp_path, "pictures", PICTURES, pack_bytes=1000) as packs:
        for number in range(10):
            packs.add({"sha256": str(number), "image": {"bytes": bytes([number]) * 300, "path": ""}})
    assert packs.packs == 3
    assert [name for name, _ in stream_pictures(tmp_path)] == [str(number) for number in range(10)]


def test_the_contact_sheet_is_small_and_shows_something(tmp_path: Path):
    rows = [SourceRow(str(seed), png(seed), captions=(f"picture number {seed} ü—",)) for seed in range(40)]
    imported(tmp_path, rows)
    sheet = tmp_path / "contact_sheet.webp"
    assert sheet.stat().st_size <= 60_000
    with Image.open(sheet) as shown:
        assert len(shown.convert("RGB").getcolors(1_000_000) or []) > 50
