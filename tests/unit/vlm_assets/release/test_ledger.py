"""The ledger: append-only, one winner of a race, history complete."""

from pathlib import Path

import pytest

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.store import Store


def artifact(version: str) -> ArtifactRef:
    return ArtifactRef("finetuned_model", version, f"/store/finetuned_model/{version}", "00")


def promote(ledger: Ledger, bundle: str, seen: LedgerEntry | None) -> LedgerEntry:
    return ledger.promote(artifact(bundle), bundle, seen=seen, why="better", run_id="run", scores={"cider": 1.5})


def test_before_the_first_promotion_there_is_no_champion(tmp_path: Path) -> None:
    assert Ledger(Store(tmp_path)).champion() is None


def test_each_promotion_is_kept_with_what_it_replaced(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    first = promote(ledger, "one", None)
    promote(ledger, "two", first)
    entries = Ledger(Store(tmp_path)).entries()
    assert [(entry.number, entry.bundle_version, entry.previous_bundle_version) for entry in entries] == [
        (1, "one", ""),
        (2, "two", "one"),
    ]
    assert entries[1].artifact == artifact("two")
    assert entries[1].scores == {"cider": 1.5}
    assert "@" in entries[1].who


def test_of_two_promotions_that_saw_the_same_champion_one_wins_and_the_other_says_why(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    first = promote(ledger, "one", None)
    promote(ledger, "two", first)
    with pytest.raises(
        GateError, match=r"Another promotion took ledger entry 2 first.*eval_report and released_model again"
    ):
        promote(ledger, "three", first)
    champion = ledger.champion()
    assert champion is not None
    assert champion.bundle_version == "two"


def test_the_tenth_entry_follows_the_ninth(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    seen = None
    for number in range(12):
        seen = promote(ledger, str(number), seen)
    assert [entry.number for entry in ledger.entries()] == list(range(1, 13))
