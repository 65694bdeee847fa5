from dataclasses import replace
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_assets.data.clusters import Sets
from vlm_assets.data.dedup import Links
from vlm_assets.data.settling import settle
from vlm_assets.data.split import Assignment, Candidate, SplitPlan, assign_splits

PLAN = SplitPlan(0.4, 0.2, 0.4)
Pair = tuple[int, int]
Case = tuple[list[Candidate], list[Pair]]


@st.composite
def rows_and_pairs(draw: st.DrawFn) -> Case:
    """Rows that show pictures, some of them the same, with random groups and prescribed splits; and which pictures
    resemble each other, in any order. A picture is numbered by the first row that shows it."""
    rows: list[Candidate] = []
    pictures = 0
    for _ in range(draw(st.integers(2, 10))):
        picture = draw(st.integers(0, min(pictures, 7)))
        pictures = max(pictures, picture + 1)
        rows.append(
            Candidate(
                f"image{picture}",
                group=draw(st.sampled_from(["", "", "a", "b"])),
                split=draw(st.sampled_from(["", "", "train", "test"])),
                look=picture,
            )
        )
    among = list(combinations(range(pictures), 2))
    pairs = draw(st.lists(st.sampled_from(among), unique=True, max_size=20)) if among else []
    return rows, pairs


def links_of(pairs: list[Pair], count: int) -> Links:
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    levels = np.ones(len(pairs))
    return Links(np.arange(count), ends[:, 0], ends[:, 1], levels, levels)


def pictures_of(rows: list[Candidate]) -> int:
    return 1 + max(at if row.look is None else row.look for at, row in enumerate(rows))


def settled(rows: list[Candidate], pairs: list[Pair]) -> Assignment:
    """By the links that connect the pairs, as the search finds them; the pairs of a set only when asked for."""
    count = pictures_of(rows)
    sets = Sets(count)
    links = [pair for pair in pairs if sets.join(*pair)]

    def among(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        some = [pair for pair in pairs if set(pair) <= set(looks.tolist())]
        return tuple(np.array(some, dtype=np.int64).reshape(-1, 2).T)

    return settle(rows, links_of(links, count), among, PLAN)


@settings(deadline=None, max_examples=300)
@given(rows_and_pairs())
def test_links_settle_the_splits_as_all_pairs_would(case: Case):
    rows, pairs = case
    near = [[a + b - at for a, b in pairs if at in (a, b)] for at in range(pictures_of(rows))]
    everything = [replace(row, twins=near[row.look or 0]) for row in rows]
    result, expected = settled(rows, pairs), assign_splits(everything, PLAN)
    assert result.split == expected.split
    assert result.dropped == expected.dropped
    assert result.cluster == expected.cluster


@settings(deadline=None, max_examples=100)
@given(rows_and_pairs())
def test_no_picture_or_near_duplicate_is_in_another_split(case: Case):
    rows, pairs = case
    splits: dict[int | None, set[str]] = {}
    for position, split in settled(rows, pairs).split.items():
        splits.setdefault(rows[position].look, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    for one, other in pairs:
        assert splits.get(one) == splits.get(other) or one not in splits or other not in splits


@settings(deadline=None, max_examples=150)
@given(rows_and_pairs(), st.integers(1, 10))
def test_appended_rows_move_no_old_row(case: Case, count: int):
    """Whatever they show: a new picture, a near duplicate, or an old picture with a group or a split of its own."""
    rows, pairs = case
    old = [pair for pair in pairs if max(pair) < pictures_of(rows[:count])]
    before, after = settled(rows[:count], old), settled(rows, pairs)
    assert all(after.split[position] == split for position, split in before.split.items())
    assert set(before.dropped) == {position for position in after.dropped if position < count}


@settings(deadline=None, max_examples=150)
@given(rows_and_pairs(), st.data())
def test_rows_put_in_anywhere_move_only_rows_of_their_own_cluster(case: Case, data: st.DataObject):
    rows, pairs = case
    old = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1)))
    known = {picture: number for number, picture in enumerate(dict.fromkeys(rows[position].look for position in old))}
    fewer = [replace(rows[position], look=known[rows[position].look]) for position in old]
    before = settled(fewer, [(known[a], known[b]) for a, b in pairs if a in known and b in known])
    after = settled(rows, pairs)
    kin = connected(rows, pairs)
    new = {kin[position] for position in range(len(rows)) if position not in old}
    for number, position in enumerate(old):
        if kin[position] not in new:
            assert after.split.get(position) == before.split.get(number)


def connected(rows: list[Candidate], pairs: list[Pair]) -> list[int]:
    """By row: what it is tied to by pictures, near duplicates and groups, be it dropped or not."""
    sets = Sets(len(rows))
    for one, other in combinations(range(len(rows)), 2):
        near = tuple(sorted((rows[one].look or 0, rows[other].look or 0)))
        if near[0] == near[1] or near in pairs or rows[one].group == rows[other].group != "":
            sets.join(one, other)
    return [
        int(np.flatnonzero(sets.together(np.full(len(rows), at), np.arange(len(rows))))[0]) for at in range(len(rows))
    ]


def test_a_new_near_duplicate_of_a_test_picture_never_trains():
    """Also where its own hash, or the source, says train; and a new row of the very picture does not either."""
    tests = [Candidate(f"test {number}", split="test", look=number) for number in range(200)]
    copies = [
        Candidate(f"copy {number}", split="train" if number % 2 else "", look=200 + number) for number in range(200)
    ]
    again = [Candidate(f"test {number}", group=f"g{number}", split="train", look=number) for number in range(200)]
    result = settled([*tests, *copies, *again], [(number, 200 + number) for number in range(200)])
    assert set(result.split.values()) == {"test"}
    assert set(result.dropped) == {200 + number for number in range(1, 200, 2)} | set(range(400, 600))


def test_pictures_of_one_look_stay_together_when_the_oldest_is_dropped():
    rows = [
        Candidate("a", group="group", split="train"),
        Candidate("b", group="group", split="test"),
        *(Candidate(f"copy {number}") for number in range(30)),
    ]
    look = np.array([0, 1, *[1] * 30])
    empty = np.empty(0, dtype=np.int64)
    result = settle(rows, Links(look, empty, empty, np.empty(0), np.empty(0)), lambda looks: (empty, empty), PLAN)
    assert result.dropped == {1: ("test", "train")}
    assert len({result.split[position] for position in range(2, 32)}) == 1
