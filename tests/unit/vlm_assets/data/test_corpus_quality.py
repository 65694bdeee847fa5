from typing import Any

from vlm_assets.data.corpus_quality import flag_corpus, repetition
from vlm_assets.data.findings import Findings
from vlm_assets.data.quality import Fault, QualityLimits


def row(number: int, *captions: str) -> dict[str, Any]:
    name = f"{number:016x}"
    return {
        "image_id": name, "sha256": name, "file_name": f"{number}.png", "captions": list(captions),
        "source_rows": [f"line {number}"],
    }  # fmt: skip


def found(rows: list[dict[str, Any]], **limits: float) -> dict[str, tuple[str, str, int]]:
    flagged = Findings()
    flag_corpus(rows, QualityLimits(**limits), flagged)
    return {item["reason"]: (item["caption"], item["detail"], item["pictures"]) for item in flagged.rows}


def test_one_caption_on_very_many_pictures_is_one_finding():
    rows = [row(n, "a coat" if n < 30 else f"garment {n}") for n in range(100)]
    assert found(rows) == {"frequent_caption": ("a coat", "on 30 of 100 pictures (30.0 %)", 30)}
    assert found(rows, max_caption_share=0.3) == {}
    assert found(rows[:30] * 1, max_caption_share=1.0) == {}


def test_few_pictures_say_nothing_about_shares():
    assert found([row(n, "a coat") for n in range(19)]) == {}


def test_common_openings_and_endings():
    rows = [row(n, f"picture of a number {n}") for n in range(40)]
    rows += [row(n, f"{n} garments on a hanger") for n in range(40, 120)]
    assert found(rows) == {
        "common_ending": ("40 garments on a hanger", "80 of 120 captions (66.7 %) end with 'on a hanger'", 80)
    }
    assert set(found(rows, max_phrase_share=0.3)) == {"common_opening", "common_ending"}


def test_repetition_is_measured_below_the_limits_too():
    rows = [row(1, "a red coat on a hanger"), row(2, "A red coat, folded", "a hat on a hanger"), row(3, "a hat")]
    rows += [row(4, "a hat"), row(5, "photo of a shoe on grass")]
    flagged = Findings()
    flagged.add(rows[4], Fault("boilerplate", "'photo of'"), "photo of a shoe on grass")
    flagged.add(rows[3], Fault("blurred", "x"))
    assert repetition(rows, flagged) == [
        {"measure": "boilerplate", "words": "", "captions": 1, "share": 1 / 6},
        {"measure": "frequent_caption", "words": "a hat", "captions": 2, "share": 2 / 6},
        {"measure": "common_opening", "words": "a red coat", "captions": 1, "share": 1 / 6},
        {"measure": "common_ending", "words": "on a hanger", "captions": 2, "share": 2 / 6},
    ]
    assert [measure["share"] for measure in repetition([], Findings())] == [0, 0, 0, 0]
