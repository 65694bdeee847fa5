"""The demo's last page."""

import json
from pathlib import Path

from vlm_assets.cli.summary import Captioned, caption_table, summary


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 300, "clusters": 210}


def system(label: str, cider: float, exact: float) -> dict:
    metrics = {"cider": estimate(cider), "exact_match": estimate(exact)}
    return {"label": label, "splits": {"test": {"metrics": metrics, "notes": []}}}


def test_the_page_shows_every_system_with_intervals(tmp_path: Path):
    systems = {"candidate": system("Fine-tuned", 7.3, 0.45), "copy": system("Nearest picture", 5.9, 0.1)}
    (tmp_path / "scores.json").write_text(json.dumps({"systems": systems}))
    page = summary(tmp_path, [Captioned("a cat", 0.9, ("a cat",))], {"report": "/r.html"}, "took 1 min")
    assert "Test split, 300 pictures from 210 groups never trained on" in page
    assert "7.30 (7.20 to 7.40)" in page
    assert "45.0 % (35.0 to 55.0 %)" in page
    assert "Nearest picture" in page
    assert "/r.html" in page
    assert page.endswith("took 1 min")
    assert "Slots" not in page  # nothing declares slots here


def test_a_number_that_cannot_mean_anything_is_not_shown(tmp_path: Path):
    one = system("Fine-tuned", 0.0, 1.0)
    one["splits"]["test"]["metrics"]["cider"] |= {"n": 1, "note": "CIDEr is 0 for a corpus of one picture."}
    one["splits"]["test"]["notes"] = ["CIDEr is 0 for a corpus of one picture."]
    (tmp_path / "scores.json").write_text(json.dumps({"systems": {"candidate": one}}))
    page = summary(tmp_path, [], {}, "")
    assert "n/a (see the note)" in page
    assert "note: CIDEr is 0 for a corpus of one picture." in page
    assert "0.00" not in page


def test_exact_captions_are_marked_and_shown_beside_the_reference_they_equal():
    lines = caption_table([Captioned("A cat", 0.5, ("a kitten", "a cat")), Captioned("a dog", 0.25, ("a cat",))])
    assert lines[1].startswith("= A cat")
    assert lines[1].count("A cat") == 2
    assert lines[2].startswith("  a dog")
    assert "a cat" in lines[2]
    assert lines[2].endswith("25 %")


def test_long_captions_keep_the_columns():
    short, long = (caption_table([Captioned(text, 0.5, (text,))])[1] for text in ("a", "word " * 40))
    assert len(short) == len(long)
    assert "…" in long
