from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_assets.data.split import (
    Candidate,
    Holdout,
    SplitPlan,
    assign_splits,
    held_values,
    leaks_of_naive_split,
    split_counts,
    unit_hash,
)
from vlm_assets.errors import ConfigError

PLAN = SplitPlan(
    holdouts=(Holdout("unseen_role", ("role",), 0.2), Holdout("unseen_pair", ("role", "gender"), 0.2)),
)
ROLES = ["cook", "judge", "elf", "pilot", "singer", "guard", "mage"]


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Rows with random groups, prescribed splits, slots and earlier twins."""
    rows: list[Candidate] = []
    for position in range(draw(st.integers(1, 14))):
        slots = draw(
            st.lists(
                st.fixed_dictionaries({"role": st.sampled_from(ROLES), "gender": st.sampled_from(["man", ""])}),
                max_size=2,
            )
        )
        twins = draw(st.sets(st.integers(0, max(position - 1, 0)), max_size=2)) if position else set()
        rows.append(
            Candidate(
                f"image{position}",
                group=draw(st.sampled_from(["", "", "a", "b", "c"])),
                split=draw(st.sampled_from(["", "", "", "train", "test"])),
                slots=tuple(slots),
                twins=tuple(sorted(twins)),
            )
        )
    return rows


@settings(deadline=None, max_examples=60)
@given(candidates())
def test_no_twin_group_or_cluster_is_in_two_splits(rows: list[Candidate]):
    result = assign_splits(rows, PLAN)
    for position, split in result.split.items():
        for twin in rows[position].twins:
            assert result.split.get(twin, split) == split
    for name in ("a", "b", "c"):
        assert len({split for position, split in result.split.items() if rows[position].group == name}) <= 1
    split_of_cluster: dict[str, str] = {}
    for position, cluster in result.cluster.items():
        assert split_of_cluster.setdefault(cluster, result.split[position]) == result.split[position]
    assert set(result.split) | set(result.dropped) == set(range(len(rows)))


@settings(deadline=None, max_examples=60)
@given(candidates(), st.integers(0, 14))
def test_appending_rows_moves_and_drops_no_old_row(rows: list[Candidate], count: int):
    before, after = assign_splits(rows[:count], PLAN), assign_splits(rows, PLAN)
    assert all(after.split[position] == split for position, split in before.split.items())
    assert set(before.dropped) == {position for position in after.dropped if position < count}


@settings(deadline=None, max_examples=60)
@given(candidates())
def test_training_never_sees_a_held_out_value(rows: list[Candidate]):
    free = [replace(row, split="") for row in rows]  # nothing prescribed
    result = assign_splits(free, PLAN)
    for position, split in result.split.items():
        if split in ("train", "val"):
            for holdout in PLAN.holdouts:
                for value in held_values(free[position].slots, holdout):
                    assert unit_hash(PLAN.seed, holdout.name, *value) >= holdout.fraction


@settings(deadline=None, max_examples=60)
@given(candidates())
def test_prescribed_splits_are_honoured(rows: list[Candidate]):
    result = assign_splits(rows, PLAN)
    assert all(split == rows[position].split for position, split in result.split.items() if rows[position].split)


def test_shares_are_about_those_asked_for():
    result = assign_splits([Candidate(f"{number}") for number in range(4000)], SplitPlan())
    counts = split_counts(result.split.values(), SplitPlan())
    assert counts["train"] == pytest.approx(3000, abs=100)
    assert counts["val"] == pytest.approx(400, abs=60)
    assert counts["test"] == pytest.approx(600, abs=70)


def test_a_seed_changes_the_split_and_nothing_else_does():
    rows = [Candidate(f"{number}") for number in range(50)]
    assert assign_splits(rows, SplitPlan()).split == assign_splits(rows, SplitPlan()).split
    assert assign_splits(rows, SplitPlan()).split != assign_splits(rows, SplitPlan(seed=1)).split


def test_a_row_that_ties_two_splits_together_is_dropped_and_says_which():
    rows = [Candidate("a", split="train"), Candidate("b", split="test"), Candidate("c", twins=(0, 1))]
    assert assign_splits(rows, SplitPlan()).dropped == {2: ("test", "train")}


def test_a_split_without_a_share_stays_empty():
    plan = SplitPlan(0.9, 0.1, 0.0)
    result = assign_splits([Candidate(f"{number}") for number in range(500)], plan)
    assert set(result.split.values()) == {"train", "val"}


def test_the_naive_split_leaks_where_there_are_copies():
    none = leaks_of_naive_split([f"{number}" for number in range(500)], [1] * 500, SplitPlan())
    assert none["leaked_test_rows"] == none["deviation"] == 0
    assert none["test_rows"] == pytest.approx(75, abs=10)
    twice = leaks_of_naive_split([f"{number}" for number in range(500)], [2] * 500, SplitPlan())
    assert (twice["rows"], twice["seeds"]) == (1000, 20)
    assert twice["leaked_test_rows"] / twice["test_rows"] == pytest.approx(0.75, abs=0.03), "the other one trains"
    near = leaks_of_naive_split([f"{number // 4}" for number in range(1000)], [1] * 1000, SplitPlan())
    assert near["leaked_test_rows"] / near["test_rows"] == pytest.approx(1 - 0.25**3, abs=0.03), "one of the three does"


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (SplitPlan(0.8, 0.1, 0.2), r"fractions are 0\.8, 0\.1, 0\.2 and add up to 1\.1"),
        (SplitPlan(0.0, 0.5, 0.5), "with some training"),
        (SplitPlan(holdouts=(Holdout("x", ("a",), 0.1), Holdout("x", ("b",), 0.1))), "Two holdouts are called 'x'"),
    ],
)
def test_impossible_plans_are_refused(plan: SplitPlan, message: str):
    with pytest.raises(ConfigError, match=message):
        assign_splits([], plan)


@settings(deadline=None, max_examples=60)
@given(candidates(), st.floats(0.05, 0.95))
def test_a_share_of_the_given_train_validates_in_whole_clusters(rows: list[Candidate], share: float):
    plan = replace(PLAN, val_of_given_train=share)
    result = assign_splits(rows, plan)
    for position, split in result.split.items():
        if rows[position].split == "test":
            assert split == "test"
        if rows[position].split == "train":
            assert split in ("train", "val")
        for twin in rows[position].twins:
            assert result.split.get(twin, split) == split


def test_the_share_of_the_given_train_is_met():
    rows = [Candidate(f"image{number}", split="train" if number % 4 else "test") for number in range(4000)]
    counts = split_counts(assign_splits(rows, replace(PLAN, val_of_given_train=0.1)).split.values(), PLAN)
    assert counts["test"] == 1000
    assert 240 <= counts["val"] <= 360  # 3.7 standard deviations
    again = assign_splits([*rows, Candidate("new", split="train")], replace(PLAN, val_of_given_train=0.1))
    assert {p: s for p, s in again.split.items() if p < 4000} == assign_splits(
        rows, replace(PLAN, val_of_given_train=0.1)
    ).split
