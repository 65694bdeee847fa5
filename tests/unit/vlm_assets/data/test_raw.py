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
    assert counts == {"pictures": 3, "captions": 3, "quarantined": 0, "skipped": 0}
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
    assert [row["groups"] for row in table] == [["g1", "g2"], ["g2"]], (
        "what ties them together is for the splits to say"
    )
    assert read_json(tmp_path / "summary.json")["merged_rows"] == 1


def test_a_picture_prescribed_to_two_splits_is_counted(tmp_path: Path):
    rows = [
        SourceRow("a", png(1), captions=("x",), split="train"),
        SourceRow("b", png(1), captions=("x",), split="test"),
        SourceRow("c", png(1), captions=("x",)),
        SourceRow("d", png(2), captions=("x",), split="test"),
    ]
    _, table, _ = imported(tmp_path, rows)
    assert [row["given_splits"] for row in table] == [["train", "test", ""], ["test"]]
    assert read_json(tmp_path / "summary.json")["prescribed_split_conflicts"] == 1


def test_without_slots_the_column_is_an_empty_list(tmp_path: Path):
    _, table, _ = imported(tmp_path, [SourceRow("a", png(1), captions=("x",))])
    assert table[0]["slots"] == "[]"


def test_unusable_rows_are_put_aside_by_reason(tmp_path: Path):
    rows = [
        SourceRow("good", png(1), captions=("x",)),
        SourceRow("cut", png(2)[:200], captions=("x",), file_name="cut.png"),
        SourceRow("text", b"hello", captions=("x",), file_name="text.jpg"),
        SourceRow("empty", b"", captions=("x",)),
        SourceRow("bomb", encoded(Image.new("1", (30_000, 30_000))), captions=("x",)),
        SourceRow("mute", png(3), captions=("  ",)),
        SourceRow("gone", reason="missing_picture", detail="no such file"),
    ]
    counts, _, _ = imported(tmp_path, rows)
    quarantine = {row["source_row"]: row for row in read_rows(tmp_path / "quarantine.parquet")}
    assert counts["quarantined"] == 6
    assert {name: row["reason"] for name, row in quarantine.items()} == {
        "cut": "truncated_picture",
        "text": "not_a_picture",
        "empty": "empty_file",
        "bomb": "picture_too_large",
        "mute": "no_caption",
        "gone": "missing_picture",
    }
    assert quarantine["text"]["file_name"] == "text.jpg"
    assert quarantine["text"]["detail"].startswith("The bytes are not a readable picture (first bytes b'hello').")
    assert quarantine["cut"]["detail"] == (
        "The PNG picture cannot be decoded (image file is truncated). It is damaged or cut off; send it again."
    )
    assert "exceeds limit" in quarantine["bomb"]["detail"] and "40,000,000" in quarantine["bomb"]["detail"]
    summary = read_json(tmp_path / "summary.json")
    assert summary["quarantined_by_reason"]["truncated_picture"] == 1
    assert summary["quarantined_examples"]["missing_picture"] == ["gone: no such file"]


def test_empty_captions_beside_good_ones_are_counted(tmp_path: Path):
    imported(tmp_path, [SourceRow("a", png(1), captions=("x", "", " ")), SourceRow("b", png(2), captions=("y",))])
    assert read_json(tmp_path / "summary.json")["empty_captions"] == 2


def test_names_that_are_not_utf_8_are_written_readably(tmp_path: Path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    rows = [SourceRow(name, png(1), captions=("a caf\udce9",), file_name=name), SourceRow(name, b"", captions=("x",))]
    _, table, _ = imported(tmp_path, rows)
    assert table[0]["file_name"] == r"caf\udce9.png" and table[0]["captions"] == [r"a caf\udce9"]
    assert read_rows(tmp_path / "quarantine.parquet")[0]["source_row"] == r"caf\udce9.png"


def test_rows_know_where_they_and_their_captions_come_from(tmp_path: Path):
    rows = [
        SourceRow("first", png(1), captions=("x", "y"), file_name="1.png"),
        SourceRow("other", png(2), captions=("x",), file_name="2.png"),
        SourceRow("again", png(1), captions=("y", "z"), file_name="copy of 1.png"),
    ]
    _, table, _ = imported(tmp_path, rows)
    assert (table[0]["source_rows"], table[0]["file_name"]) == (["first", "again"], "1.png")
    assert (table[0]["row_numbers"], table[1]["row_numbers"]) == ([0, 2], [1])
    assert (table[0]["captions"], table[0]["row_captions"]) == (["x", "y", "z"], [[0, 1], [1, 2]])


def test_the_kinds_of_files_are_counted(tmp_path: Path):
    animation = encoded(picture(3), "GIF", save_all=True, append_images=[picture(4)])
    files = [png(1), encoded(picture(2).convert("CMYK"), "JPEG"), animation]
    _, table, _ = imported(tmp_path, [SourceRow(str(n), data, captions=("x",)) for n, data in enumerate(files)])
    assert read_json(tmp_path / "summary.json")["files"] == {
        "PNG RGB": 1,
        "JPEG CMYK": 1,
        "GIF P": 1,
        "animated, first frame used": 1,
    }
    assert [row["file_bytes"] for row in table] == [len(data) for data in files]


def test_too_many_unusable_rows_stop_the_import(tmp_path: Path):
    rows = [SourceRow("a", png(1), captions=("x",)), SourceRow("b", reason="missing_picture", detail="no b.png.")]
    with pytest.raises(
        SourceError,
        match=r"1 of 2 rows of the source are unusable \(50\.0 %; missing_picture 1\), allowed are 5 %\. First: b",
    ):
        imported(tmp_path, rows, max_bad_fraction=0.05)


def test_a_hopeless_source_is_refused_before_it_is_read_to_the_end(tmp_path: Path):
    bad = [SourceRow(f"line {n}", reason="missing_picture", detail=f"no {n}.png") for n in range(1000)]
    seen: list[str] = []

    class Watched(ListSource):
        def __iter__(self):
            for row in self.rows:
                seen.append(row.source_row)
                yield row

    message = (
        r"^All rows read so far \(51 of 1,000\) are unusable \(missing_picture 51\), allowed are 5 %\. "
        r"Stopped after 51 rows\. First: line 0: no 0\.png\. Repair the source, or raise max_bad_fraction\."
    )
    with pytest.raises(SourceError, match=message):
        import_source(Watched(bad), tmp_path, max_bad_fraction=0.05, log=lambda _: None, workers=2)
    assert len(seen) < 100


def skipped(*names: str) -> list[SourceRow]:
    return [SourceRow(name, reason="skipped label=Other", detail="as skip_where says") for name in names]


def test_rows_that_are_skipped_on_purpose_are_listed_apart_and_count_on_neither_side(tmp_path: Path):
    good = [SourceRow(str(seed), png(seed), captions=("x",)) for seed in range(9)]
    bad = [SourceRow("b", reason="missing_picture", detail="no b.png")]
    counts, _, _ = imported(tmp_path, [*good, *skipped("s", "t"), *bad], max_bad_fraction=0.1)
    assert (counts["quarantined"], counts["skipped"]) == (1, 2)
    assert [row["source_row"] for row in read_rows(tmp_path / "quarantine.parquet")] == ["b"]
    assert read_rows(tmp_path / "skipped.parquet") == [
        {"source_row": name, "file_name": "", "reason": "skipped label=Other", "detail": "as skip_where says"}
        for name in ("s", "t")
    ]
    summary = read_json(tmp_path / "summary.json")
    assert summary["skipped_by_reason"] == {"skipped label=Other": 2}
    assert summary["skipped_examples"] == {"skipped label=Other": ["s: as skip_where says", "t: as skip_where says"]}


def test_skipped_rows_make_no_room_for_bad_ones(tmp_path: Path):
    """Of ten rows one may be bad, of the five that are wanted none."""
    good = [SourceRow(str(seed), png(seed), captions=("x",)) for seed in range(4)]
    bad = [SourceRow("b", reason="missing_picture", detail="no b.png.")]
    rows = [*skipped(*"stuvw"), *good, *bad]
    with pytest.raises(SourceError, match=r"1 of 5 rows of the source are unusable \(20\.0 %; missing_picture 1\), al"):
        imported(tmp_path, rows, max_bad_fraction=0.1)


def test_a_source_of_which_all_is_skipped_says_so(tmp_path: Path):
    with pytest.raises(
        SourceError,
        match=r"All 2 rows of the source are skipped, as its settings say\. First: s: skipped label=Other\.",
    ):
        imported(tmp_path, skipped("s", "t"))


def test_what_is_said_of_a_row_stays_short_whatever_the_source_puts_there(tmp_path: Path):
    endless = "x" * 1_500_000
    rows = [
        SourceRow("good", png(1), captions=("x",)),
        SourceRow(endless, reason="unreadable_picture", detail=endless, file_name=endless),
        SourceRow("cut", png(2)[:200], captions=("x",), file_name=endless),
    ]
    imported(tmp_path, rows)
    for row in read_rows(tmp_path / "quarantine.parquet"):
        assert max(map(len, row.values())) < 600
    assert read_rows(tmp_path / "quarantine.parquet")[0]["detail"].endswith("xx… (1,500,000 characters)")


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


def test_pictures_stand_in_the_packs_byte_for_byte(tmp_path: Path):
    """No compression over the compressed: a reader takes them from the disk as they are."""
    imported(tmp_path, [SourceRow("a", data := png(1), captions=("x",))])
    (pack,) = tmp_path.glob("pictures-*.parquet")
    assert data in pack.read_bytes()


def test_the_contact_sheet_is_small_and_shows_something(tmp_path: Path):
    rows = [SourceRow(str(seed), png(seed), captions=(f"picture number {seed} ü—",)) for seed in range(40)]
    imported(tmp_path, rows)
    sheet = tmp_path / "contact_sheet.webp"
    assert sheet.stat().st_size <= 60_000
    with Image.open(sheet) as shown:
        assert len(shown.convert("RGB").getcolors(1_000_000) or []) > 50
