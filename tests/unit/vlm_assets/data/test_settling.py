from dataclasses import replace
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_assets.data.clusters import Sets
from vlm_assets.data.dedup import Links
from vlm_assets.data.settling import settle
from vlm_assets.data.split import Candidate, SplitPlan, assign_splits

PLAN = SplitPlan(0.4, 0.2, 0.4)
Pair = tuple[int, int]


@st.composite
def rows_and_pairs(draw: st.DrawFn) -> tuple[list[Candidate], list[Pair]]:
    """Rows with random groups and prescribed splits, and which of them resemble each other, in any order."""
    rows = [
        Candidate(
            f"image{position}",
            group=draw(st.sampled_from(["", "", "a", "b"])),
            split=draw(st.sampled_from(["", "", "train", "test"])),
        )
        for position in range(draw(st.integers(2, 10)))
    ]
    pairs = draw(st.lists(st.sampled_from(list(combinations(range(len(rows)), 2))), unique=True, max_size=20))
    return rows, pairs


def links_of(pairs: list[Pair], count: int) -> Links:
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    levels = np.ones(len(pairs))
    return Links(np.arange(count), ends[:, 0], ends[:, 1], levels, levels)


def settled(rows: list[Candidate], pairs: list[Pair]):
    """By the links that connect the pairs, as the search finds them; the pairs of a set only when asked for."""
    sets = Sets(len(rows))
    links = [pair for pair in pairs if sets.join(*pair)]

    def among(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        some = [pair for pair in pairs if set(pair) <= set(looks.tolist())]
        return tuple(np.array(some, dtype=np.int64).reshape(-1, 2).T)

    return settle(rows, links_of(links, len(rows)), among, PLAN)


@settings(deadline=None, max_examples=300)
@given(rows_and_pairs())
def test_links_settle_the_splits_as_all_pairs_would(case: tuple[list[Candidate], list[Pair]]):
    rows, pairs = case
    near = [[a + b - at for a, b in pairs if at in (a, b)] for at in range(len(rows))]
    everything = [replace(row, twins=near[at]) for at, row in enumerate(rows)]
    result, expected = settled(rows, pairs), assign_splits(everything, PLAN)
    assert result.split == expected.split
    assert result.dropped == expected.dropped
    assert result.cluster == expected.cluster


@settings(deadline=None, max_examples=100)
@given(rows_and_pairs())
def test_no_near_duplicate_is_in_another_split(case: tuple[list[Candidate], list[Pair]]):
    rows, pairs = case
    split = settled(rows, pairs).split
    for one, other in pairs:
        assert split.get(one) == split.get(other) or one not in split or other not in split


@settings(deadline=None, max_examples=100)
@given(rows_and_pairs(), st.integers(1, 10))
def test_appended_rows_move_no_old_row(case: tuple[list[Candidate], list[Pair]], count: int):
    rows, pairs = case
    old = [pair for pair in pairs if max(pair) < count]
    before, after = settled(rows[:count], old), settled(rows, pairs)
    assert all(after.split[position] == split for position, split in before.split.items())
    assert set(before.dropped) == {position for position in after.dropped if position < count}


def test_a_new_near_duplicate_of_a_test_picture_never_trains():
    """Also where its own hash, or the source, says train."""
    tests = [Candidate(f"test {number}", split="test") for number in range(200)]
    copies = [Candidate(f"copy {number}", split="train" if number % 2 else "") for number in range(200)]
    result = settled([*tests, *copies], [(number, 200 + number) for number in range(200)])
    assert {result.split[200 + number] for number in range(0, 200, 2)} == {"test"}
    assert set(result.dropped) == {200 + number for number in range(1, 200, 2)}


def test_pictures_of_one_look_stay_together_when_the_oldest_is_dropped():
    rows = [
        Candidate("a", group="group", split="train"),
        Candidate("b", group="group", split="test"),
        *(Candidate(f"copy {number}") for number in range(30)),
    ]
    look = np.array([0, 1, *[1] * 30])
    empty = np.empty(0, dtype=np.int64)
    result = settle(rows, Links(look, empty, empty, empty, empty), lambda looks: (empty, empty), PLAN)
    assert result.dropped == {1: ("test", "train")}
    assert len({result.split[position] for position in range(2, 32)}) == 1
