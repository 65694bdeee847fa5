"""The ledger: append-only, one winner of a race, history complete."""

import json
import os
from pathlib import Path

import pytest

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError, StoreError
from vlm_assets.release.ledger import Ledger, LedgerEntry, actor
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


def three_entries(root: Path) -> list[Path]:
    """The files of a ledger of three entries."""
    ledger, seen = Ledger(Store(root)), None
    for bundle in ("one", "two", "three"):
        seen = promote(ledger, bundle, seen)
    return sorted((root / "ledger").glob("*.json"))


def rewrite(file: Path, **changes: object) -> None:
    """Edit an entry by hand; a value of None takes the field out."""
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize("number", [0, 1])
def test_an_edited_entry_is_noticed_by_the_next_reader(tmp_path: Path, number: int) -> None:
    file = three_entries(tmp_path)[number]
    rewrite(file, why="because I say so")
    said = rf"ledger/0000000{number + 1}\.json is not the entry that ledger/0000000{number + 2}\.json was appended to"
    with pytest.raises(StoreError, match=said):
        Ledger(Store(tmp_path)).champion()


def test_a_hash_cannot_be_taken_out_of_the_chain(tmp_path: Path) -> None:
    rewrite(three_entries(tmp_path)[2], previous_sha256=None)
    with pytest.raises(StoreError, match="one of the two was altered"):
        Ledger(Store(tmp_path)).entries()


def test_a_missing_entry_is_noticed(tmp_path: Path) -> None:
    three_entries(tmp_path)[1].unlink()
    with pytest.raises(StoreError, match=r"ledger/00000002\.json is missing: the ledger is no longer whole"):
        Ledger(Store(tmp_path)).entries()


def test_entries_from_before_there_was_a_chain_are_read_and_appended_to(tmp_path: Path) -> None:
    *files, last = three_entries(tmp_path)
    last.unlink()
    for file in files:
        rewrite(file, previous_sha256=None)
    ledger = Ledger(Store(tmp_path))
    promote(ledger, "three", ledger.champion())
    assert [entry.bundle_version for entry in ledger.entries()] == ["one", "two", "three"]
    rewrite(files[1], why="because I say so")
    with pytest.raises(StoreError, match="was altered"):
        ledger.entries()


def test_a_user_without_a_name_acts_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # not in the list of users, as in many containers
    assert actor().startswith("uid-54321@")
    monkeypatch.setenv("VLM_ACTOR", "nightly retraining")
    assert actor() == "nightly retraining"
