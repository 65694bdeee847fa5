"""The ledger replayed: rollbacks walk a stack, and what was taken out of service stays out until it is named."""

import pytest

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError
from vlm_assets.release.history import champion_to_beat, earlier_champion, history
from vlm_assets.release.ledger import LedgerEntry


def ref(version: str) -> ArtifactRef:
    return ArtifactRef("finetuned_model", version, f"somewhere/{version}", "0" * 64)


def entries(said: str) -> list[LedgerEntry]:
    """`A B <A`: A is promoted, then B, then somebody rolls back to A."""
    return [
        LedgerEntry(number, "rollback" if word[0] == "<" else "promote", ref(word[-1]), word[-1], "", "", "", "", 0.0)
        for number, word in enumerate(said.split(), start=1)
    ]


@pytest.mark.parametrize(
    ("said", "standing", "withdrawn"),
    [
        ("", "", ""),
        ("A B C", "ABC", ""),
        ("A B C <B", "AB", "C"),
        ("A B C <B <A", "A", "BC"),
        ("A B C <A", "A", "BC"),  # B was gone past
        ("A B <A C", "AC", "B"),
        ("A B <A C <B", "AB", "C"),  # B was named, so it stands again
        ("A B <A B", "AB", ""),  # or promoted
        ("A B A <B", "B", "A"),  # A was rolled back: it is not the one below either
        ("A B A C", "ABAC", ""),
    ],
)
def test_a_rollback_takes_off_what_lies_above_its_target(said: str, standing: str, withdrawn: str) -> None:
    found = history(entries(said))
    assert "".join(entry.bundle_version for entry in found.standing) == standing
    assert "".join(sorted(found.withdrawn)) == withdrawn


@pytest.mark.parametrize(
    ("said", "target"),
    [("A B C", "B"), ("A B C <B", "A"), ("A B <A C", "A"), ("A B <A C <B", "A"), ("A B A C <A", "B")],
)
def test_without_a_name_the_way_leads_down_the_stack(said: str, target: str) -> None:
    assert earlier_champion(entries(said), "").bundle_version == target


@pytest.mark.parametrize(
    ("said", "version", "message"),
    [
        ("", "", "There is no champion yet"),
        ("A", "", "Bundle A is the first champion"),
        ("A B <A", "", r"No champion before bundle A stands: the others were rolled back.*go back to: A, B\."),
        ("A B", "X", r"X was never champion; those that were: A, B\."),
    ],
)
def test_where_there_is_none_it_says_so(said: str, version: str, message: str) -> None:
    with pytest.raises(GateError, match=message):
        earlier_champion(entries(said), version)


def test_by_name_any_champion_comes_back() -> None:
    assert earlier_champion(entries("A B <A"), "B").bundle_version == "B"


@pytest.mark.parametrize(
    ("said", "rival"),
    [("", None), ("C", None), ("A", "A"), ("A B", "B"), ("A C", "A"), ("A B C", "B"), ("A C B", "B"), ("A C <A", "A")],
)
def test_the_rival_is_the_last_champion_that_is_not_the_candidate(said: str, rival: str | None) -> None:
    found = champion_to_beat(entries(said), ref("C"))
    assert (found.version if found else None) == rival
