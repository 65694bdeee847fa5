"""Corrections: who is believed, what is vandalism, and how the accepted reach raw_dataset."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.tiny import picture_bytes
from tests.unit.vlm_assets.data.pictures import write_folder
from vlm_assets.data.assets import raw_dataset
from vlm_assets.data.checks import raw_expectations
from vlm_assets.data.tables import read_rows
from vlm_assets.monitoring.corrections import TrustRules, sift
from vlm_assets.monitoring.feedback import REFUSED, feedback_captions, feedback_expectations
from vlm_assets.resources import RefIOManager, StoreResource
from vlm_serving.feedback_log import FeedbackLog, FeedbackRow
from vlm_serving.kept_pictures import KeptPictures


def row(caption_id: str, caption: str, key: str = "shop", at_s: float = 100.0) -> FeedbackRow:
    return FeedbackRow(at_s, caption_id, caption, key_name=key)


def picture_of(caption_id: str) -> bytes | None:
    """Captions p1 and p1-again are of one picture; `lost` has none."""
    return None if caption_id == "lost" else caption_id.removesuffix("-again").encode()


def sifted(*rows: FeedbackRow, said: dict[str, str] | None = None, **rules: Any) -> tuple[list[str], dict[str, int]]:
    found = sift(rows, picture_of, said or {}, TrustRules(**rules))
    return [one.row.caption for one in found.accepted], found.reasons()


def test_a_correction_is_accepted_with_its_picture():
    found = sift([row("p1", "a red coat")], picture_of, {}, TrustRules())
    assert [(one.row.caption, one.picture) for one in found.accepted] == [("a red coat", b"p1")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "caption_too_short"),
        ("buy at www.cheap.example now", "has_url"),
        ("<b>a red coat</b>", "has_html"),
        ("untitled", "caption_says_nothing"),
        ("a fucking coat", "refused_word"),
    ],
)
def test_garbage_is_refused_with_a_reason(text: str, reason: str):
    accepted, reasons = sifted(row("p1", text), refused_words=("fuck",))
    assert not accepted
    assert list(reasons) == [reason]


def test_what_cannot_teach_is_refused():
    rows = [row("p1", "A red coat"), row("lost", "a blue coat")]
    assert sifted(*rows, said={"p1": "a red coat"}) == ([], {"says_the_same": 1, "no_picture": 1})


def test_repetitions_count_once_and_the_last_word_of_a_key_holds():
    rows = [row("p1", "a red coat"), row("p1-again", "a red coat"), row("p1", "a scarlet coat")]
    assert sifted(*rows) == (["a scarlet coat"], {"repeated": 1, "corrected_again": 1})


def test_two_keys_may_both_be_right_and_the_same_words_count_once():
    rows = [row("p1", "a red coat", "one"), row("p1", "a scarlet coat", "two"), row("p1", "a red coat", "three")]
    assert sifted(*rows) == (["a red coat", "a scarlet coat"], {"said_by_others": 1})


def test_strangers_must_agree_and_trusted_keys_need_not():
    rows = [row("p1", "a red coat", "one"), row("p2", "a hat", "one"), row("p2", "a hat", "two"), row("p3", "a bag")]
    assert sifted(*rows, agreement=2, trusted=frozenset({"shop"})) == (
        ["a hat", "a bag"],
        {"nobody_agrees": 1, "said_by_others": 1},
    )


def test_blocked_keys_never_count():
    assert sifted(row("p1", "a red coat"), blocked=frozenset({"shop"})) == ([], {"blocked_key": 1})


def test_a_key_has_a_rate():
    rows = [row(f"p{n}", f"coat number {n}", at_s=100.0 + n) for n in range(5)]
    late = row("p9", "a late coat", at_s=100.0 + 3601)
    assert sifted(*rows, late, max_per_key_hour=2) == (
        ["coat number 0", "coat number 1", "a late coat"],
        {"over_the_rate": 3},
    )


def test_a_key_that_says_one_thing_of_everything_is_left_out_with_it():
    rows = [row(f"p{n}", "a potato" if n % 4 else f"coat number {n}") for n in range(20)]
    accepted, reasons = sifted(*rows)
    assert accepted == [f"coat number {n}" for n in range(0, 20, 4)]
    assert reasons == {"says_it_of_everything": 15}
    assert len(sifted(*rows, trusted=frozenset({"shop"}))[0]) == 20


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What serving wrote: `correct(name, caption)` corrects the caption of picture number `name`."""
    monkeypatch.setenv("VLM_REQUEST_LOG", str(tmp_path / "log"))
    log = FeedbackLog(tmp_path / "log" / "feedback", 100_000)

    def correct(number: int, caption: str) -> None:
        pictures = KeptPictures(tmp_path / "log" / "pictures", 10_000_000)
        pictures.append(f"r{number}", picture_bytes(number))
        pictures.close()
        log.append(row(f"r{number}", caption, at_s=100.0 + number))

    return correct


@pytest.fixture
def materialize(tmp_path: Path):
    store = StoreResource(root=str(tmp_path / "store"))
    rows = [{"file_name": f"{n}.png", "text": f"picture number {n}"} for n in range(60)]
    folder = write_folder(tmp_path / "pictures", rows)

    def run(assets: list[Any] | None = None, **settings: Any) -> dict[str, Any]:
        config = {"source": {"image_folder": {"path": str(folder)}}, **settings}
        result = dg.materialize(
            assets or [feedback_captions, feedback_expectations, raw_dataset, raw_expectations],
            resources={"store": store, "io_manager": RefIOManager(store=store)},
            run_config={"ops": {"raw_dataset": {"config": config}}},
        )
        made = {name: result.output_for_node(name) for name in ("feedback_captions", "raw_dataset") if assets is None}
        return made or {"raw_dataset": result.output_for_node("raw_dataset")}

    run.path = lambda ref: store.open().directory(ref)  # pyright: ignore[reportFunctionMemberAccess]
    return run


def test_corrections_become_rows_of_raw_dataset_and_without_them_all_is_as_before(materialize: Any, serving: Any):
    alone = materialize([raw_dataset])["raw_dataset"]
    empty = materialize()
    assert empty["raw_dataset"] == alone
    assert empty["feedback_captions"].counts["accepted"] == 0
    serving(1, "a corrected caption of noise")
    serving(2, "click www.spam.example")
    mixed = materialize()
    rows = read_rows(materialize.path(mixed["raw_dataset"]) / "rows.parquet")
    assert len(rows) == 61
    assert rows[-1]["captions"] == ["a corrected caption of noise"]
    assert mixed["raw_dataset"].version != alone.version
    refused = read_rows(materialize.path(mixed["feedback_captions"]) / REFUSED)
    assert [one["reason"] for one in refused] == ["has_url"]
    assert materialize(corrections="ignore")["raw_dataset"] == alone
    assert materialize()["raw_dataset"] == mixed["raw_dataset"]
