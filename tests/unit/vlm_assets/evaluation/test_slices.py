"""Slices: who is in which, and the signs of collapse."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_assets.evaluation.collapse import collapse_measures, is_looping, plain
from vlm_assets.evaluation.slices import (
    SOURCES_SHOWN,
    all_slices,
    brightness_slices,
    length_slices,
    slot_slices,
    source_slices,
)


def members(slices):
    return {piece.name: piece.rows.tolist() for piece in slices}


def test_lengths_are_cut_into_terciles_by_the_first_reference():
    references = [
        ["one two"],
        ["one two three", "a much longer second reference"],
        ["a b c d"],
        ["a b"],
        ["a b c"],
        ["a b c d e"],
    ]
    assert members(length_slices(references)) == {
        "low: 2 words": [0, 3],
        "middle: 3 words": [1, 4],
        "high: 4 to 5 words": [2, 5],
    }


def test_equal_values_are_one_slice():
    assert members(length_slices([["a b"]] * 5)) == {"low: 2 words": [0, 1, 2, 3, 4]}


def test_brightness_is_named_in_per_cent():
    assert members(brightness_slices([0.1, 0.5, 0.9])) == {
        "low: 10 % of white": [0],
        "middle: 50 % of white": [1],
        "high: 90 % of white": [2],
    }


def test_slots_of_the_first_caption_decide():
    slots = [
        json.dumps([{"role": "cook", "tone": ""}, {"role": "chef", "tone": ""}]),
        json.dumps([{"role": "cook", "tone": "dark"}]),
        "[]",
    ]
    found = slot_slices(slots)
    assert [(piece.kind, piece.name, piece.rows.tolist()) for piece in found] == [
        ("role", "cook", [0, 1]),
        ("tone", "(none)", [0]),
        ("tone", "dark", [1]),
    ]


def test_folders_of_the_source_are_slices_the_largest_first():
    assert members(source_slices(["web", "phone", "web", "", "web", "phone"])) == {
        "web": [0, 2, 4],
        "phone": [1, 5],
        "(no folder)": [3],
    }
    assert source_slices(["web"] * 5) == []
    assert len(source_slices([str(number) for number in range(40)])) == SOURCES_SHOWN


def test_small_slices_are_left_out():
    slots = [json.dumps([{"role": "cook" if row < 3 else "judge"}]) for row in range(13)]
    kinds = {(piece.kind, piece.name) for piece in all_slices([["a b"]] * 13, [0.5] * 13, slots, [""] * 13, 10)}
    assert kinds == {("caption length", "low: 2 words"), ("brightness", "low: 50 % of white"), ("role", "judge")}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_terciles_hold_every_picture_exactly_once(values):
    slices = brightness_slices(values)
    rows = sorted(row for piece in slices for row in piece.rows.tolist())
    assert rows == list(range(len(values)))
    tops = [max(values[row] for row in piece.rows) for piece in slices]
    assert tops == sorted(tops)


@pytest.mark.parametrize(
    ("caption", "looping"),
    [
        ("the the the cat", True),
        ("a man and a man and a man and", True),
        ("a very very good cat", False),
        ("a red hat and a red coat", False),
        ("no no", False),
        ("", False),
        ("A cat. A cat. A cat.", False),  # "cat." and the final "cat" differ; four-word blocks do not repeat thrice
    ],
)
def test_looping(caption, looping):
    assert is_looping(caption) is looping


def test_plain_forgives_case_spaces_and_a_full_stop():
    assert plain("  A Red   square. ") == "a red square"


def test_collapse_measures_count_shares():
    captions = ["a cat", "A cat.", "", "go go go", "a new thing"]
    found = collapse_measures(captions, [["a cat", "one small cat"]] * 5, {"a cat", "go go go", ""})
    assert found["distinct_share"] == 4 / 5
    assert (found["most_frequent_share"], found["most_frequent_caption"]) == (2 / 5, "a cat")
    assert (found["empty_share"], found["looping_share"], found["novel_share"]) == (1 / 5, 1 / 5, 1 / 5)
    assert (found["mean_words"], found["max_words"], found["mean_reference_words"]) == (2.0, 3, 2.5)
