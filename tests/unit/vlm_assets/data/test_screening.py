"""Screening of a real snapshot: what goes, what stays with a flag, and what the report says of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from tests.unit.vlm_assets.data.pictures import ListSource, encoded, picture, png, textured
from vlm_assets.data.config import SplitConfig
from vlm_assets.data.quality import FLAGS, MEANINGS, QualityLimits
from vlm_assets.data.raw import import_source
from vlm_assets.data.screening import Screened, screen
from vlm_assets.data.sources.base import SourceRow


def screened(path: Path, rows: list[SourceRow], **limits: Any) -> Screened:
    path.mkdir(exist_ok=True)
    import_source(ListSource(rows), path, max_bad_fraction=1, log=lambda _: None)
    return screen(path, QualityLimits(**limits), lambda _: None)


def rows_with_every_fault() -> list[SourceRow]:
    animation = encoded(textured(5), "GIF", save_all=True, append_images=[textured(6)])
    blurred = textured(7).filter(ImageFilter.GaussianBlur(6))
    return [
        SourceRow("good", encoded(textured(0)), captions=("a good one",)),
        SourceRow("named", encoded(textured(1), "JPEG"), captions=("a liar",), file_name="a.png"),
        SourceRow("cmyk", encoded(textured(2).convert("CMYK"), "JPEG"), captions=("for print",)),
        SourceRow("animated", animation, captions=("it moves",)),
        SourceRow("blurred", encoded(blurred), captions=("out of focus",)),
        SourceRow("dark", encoded(textured(8).point(lambda level: level // 30)), captions=("a black cat at night",)),
        SourceRow("tiny", encoded(picture(9, (20, 20))), captions=("a tiny one",)),
        SourceRow("sku", encoded(textured(11)), captions=("a coat AB-12345", "call +49 30 1234567"),
                  slots=({"k": "1"}, {"k": "2"})),
        SourceRow("spam", encoded(textured(12)), captions=("see www.shop.example",)),
    ]  # fmt: skip


def test_everything_that_is_wrong_is_dropped_or_flagged(tmp_path: Path):
    result = screened(tmp_path, rows_with_every_fault())
    assert {(row["source_row"], row["reason"]) for row in result.dropped.rows} == {
        ("tiny", "too_small"),
        ("sku", "has_phone"),
        ("spam", "has_url"),
        ("spam", "no_caption_left"),
    }
    flags = {row["source_rows"][0]: row["flags"] for row in result.rows}
    assert flags == {
        "good": [],
        "named": ["wrong_extension"],
        "cmyk": ["converted_colours"],
        "animated": ["animated"],
        "blurred": ["blurred"],
        "dark": ["dark", "low_contrast", "blurred"],
        "sku": ["has_sku"],
    }
    assert result.flagged.reasons() == {
        "blurred": 2, "has_sku": 1, "wrong_extension": 1, "converted_colours": 1, "animated": 1, "dark": 1,
        "low_contrast": 1,
    }  # fmt: skip
    assert len(result.signatures) == len(result.rows) == 7


def test_a_dropped_caption_takes_its_slots_and_source_with_it(tmp_path: Path):
    (row,) = [row for row in screened(tmp_path, rows_with_every_fault()).rows if row["source_rows"] == ["sku"]]
    assert (row["captions"], row["row_captions"], json.loads(row["slots"])) == (
        ["a coat AB-12345"],
        [[0]],
        [{"k": "1"}],
    )


def test_slots_are_declared_for_every_caption_that_is_left_or_for_none(tmp_path: Path):
    """What is left after a caption is dropped may say nothing: then no slots are declared."""
    row = SourceRow("a", encoded(textured(0)), captions=("x", "a coat"), slots=({"k": "1"}, {}))
    (left,) = screened(tmp_path, [row]).rows
    assert (left["captions"], left["slots"]) == (["a coat"], "[]")


@pytest.mark.parametrize("flag", ["blurred", "animated", "wrong_extension"])
def test_a_flag_drops_where_the_config_says_so(tmp_path: Path, flag: str):
    result = screened(tmp_path, rows_with_every_fault(), drop_flagged=(flag,))
    assert flag not in result.flagged.reasons()
    assert flag in result.dropped.reasons()
    assert not any(flag in row["flags"] for row in result.rows)


def test_what_goes_needs_no_flag(tmp_path: Path):
    rows = [*rows_with_every_fault(), SourceRow("both", encoded(picture(20, (20, 20))), captions=("a coat AB-12345",))]
    assert "both" not in [row["source_row"] for row in screened(tmp_path, rows).flagged.rows]


def test_signals_are_in_the_rows(tmp_path: Path):
    (row,) = screened(tmp_path, [SourceRow("good", encoded(textured(0)), captions=("a good one",))]).rows
    assert 4 < row["entropy_bits"] < 8 and row["sharpness"] > 100
    assert 0.2 < row["brightness"] < 0.8 and 0.05 < row["contrast"] < 0.5


def test_a_picture_that_no_longer_decodes_is_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow was exchanged between import and screening, say, for one that knows no WebP."""
    rows = [
        SourceRow("a", png(1), captions=("a one",)),
        SourceRow("b", encoded(textured(2), "WEBP"), captions=("b one",)),
    ]
    screened(tmp_path, rows)
    monkeypatch.delitem(Image.OPEN, "WEBP")
    result = screen(tmp_path, QualityLimits(), lambda _: None)
    assert [row["source_row"] for row in result.dropped.rows] == ["b"]
    assert result.dropped.reasons() == {"undecodable": 1}


def test_the_sheet_shows_each_reason_once_before_any_twice(tmp_path: Path):
    tiny = [SourceRow(f"tiny {n}", encoded(picture(n, (20, 20))), captions=("tiny one",)) for n in range(40)]
    flat = SourceRow("flat", encoded(Image.new("RGB", (64, 64), "navy")), captions=("flat one",))
    result = screened(tmp_path, [*tiny, flat, SourceRow("good", png(99), captions=("good one",))])
    assert result.dropped.sheet_rows()[1]["reason"] == "no_content"
    result.dropped.write_sheet(tmp_path, tmp_path / "dropped.webp")
    with Image.open(tmp_path / "dropped.webp") as sheet:
        assert sheet.width > 900
    result.flagged.keep(())
    result.flagged.write_sheet(tmp_path, tmp_path / "flagged.webp")
    assert not (tmp_path / "flagged.webp").exists(), "nothing flagged, no sheet"


def test_unknown_flags_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match="unknown flag blury; there are blurred, dark"):
        SplitConfig(drop_flagged=["blurred", "blury"])
    assert SplitConfig(drop_flagged=list(FLAGS)).settings().quality.drop_flagged == tuple(FLAGS)


def test_limits_that_leave_no_room_are_refused_all_at_once():
    message = (
        r"min_caption_characters 90 is above max_caption_characters 80; "
        r"min_brightness 0\.9 is above max_brightness 0\.5: nothing would be left"
    )
    limits = {"min_caption_characters": 90, "max_caption_characters": 80, "min_brightness": 0.9, "max_brightness": 0.5}
    with pytest.raises(ValueError, match=message):
        SplitConfig(**limits)


def test_the_page_names_every_reason_with_its_meaning():
    page = (Path(__file__).resolve().parents[4] / "docs" / "quality.md").read_text()
    for reason, meaning in MEANINGS.items():
        assert f"| `{reason}` | {meaning} |" in page


def test_every_reason_that_is_given_is_explained(tmp_path: Path):
    result = screened(tmp_path, rows_with_every_fault())
    assert {*result.dropped.reasons(), *result.flagged.reasons()} <= MEANINGS.keys()


def test_the_config_defaults_are_the_limits():
    assert SplitConfig().settings().quality == QualityLimits()
