"""Which role, gender and skin tone a caption names."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_assets.errors import CorpusError
from vlm_assets.evaluation.slots import slot_accuracy, slot_value, slot_vocabulary

TONES = ["light", "medium-light", "medium", "medium-dark", "dark"]
ROWS = [
    [{"role": "firefighter", "gender": "man", "tone": "dark"}, {"role": "fireman", "gender": "man", "tone": "dark"}],
    [{"role": "scientist", "gender": "woman", "tone": "medium-light"}],
    [{"role": "scientist", "gender": "", "tone": ""}],
]


@pytest.mark.parametrize(
    ("caption", "values", "found"),
    [
        ("a woman scientist", ["man", "woman"], "woman"),
        ("a woman scientist", ["man"], ""),
        ("a man's hat", ["man"], "man"),
        ("A MAN.", ["Man"], "man"),
        ("a man with medium-light skin tone", TONES, "medium-light"),
        ("a man with light skin tone", TONES, "light"),
        ("a man with medium-light skin tone", ["light"], ""),
        ("an office worker", ["worker", "office worker"], "office worker"),
        ("an office  worker", ["office worker"], "office worker"),
        ("a person", ["man", "woman"], ""),
        ("", ["man"], ""),
        ("a man", ["", "man"], "man"),
    ],
)
def test_slot_value(caption: str, values: list[str], found: str) -> None:
    assert slot_value(caption, values) == found


def test_vocabulary_is_longest_first_without_the_absent_value() -> None:
    found = slot_vocabulary(ROWS)
    assert found["tone"] == ("medium-light", "dark")
    assert found["gender"] == ("woman", "man")


def test_accuracy() -> None:
    captions = ["a man fireman with dark skin tone", "a man scientist with medium-light skin tone", "a scientist"]
    found = slot_accuracy(captions, ROWS, resamples=20)
    assert found.items["role"].tolist() == [1, 1, 1]
    assert found.items["gender"].tolist() == [1, 0, 1]
    assert found.items["tone"].tolist() == [1, 1, 1]
    assert found.all_items.tolist() == [1, 0, 1]
    assert found.all_slots.value == pytest.approx(2 / 3)
    assert found.to_json()["slots"]["gender"]["n"] == 3


def test_all_slots_must_agree_with_one_and_the_same_reference() -> None:
    rows = [[{"role": "doctor", "gender": "man"}, {"role": "nurse", "gender": "woman"}]]
    found = slot_accuracy(["a man nurse"], rows, resamples=5)
    assert (found.items["role"][0], found.items["gender"][0], found.all_items[0]) == (1, 1, 0)


def test_naming_what_is_absent_is_wrong() -> None:
    found = slot_accuracy(["a woman scientist"], [ROWS[2]], vocabulary=slot_vocabulary(ROWS), resamples=5)
    assert found.items["gender"].tolist() == [0]


def test_pictures_without_slots_do_not_count() -> None:
    found = slot_accuracy(["a cat", "a man"], [[], [{"gender": "man"}]], resamples=5)
    assert np.isnan(found.items["gender"][0])
    assert (found.slots["gender"].value, found.slots["gender"].n, found.all_slots.n) == (1, 1, 1)


@given(st.lists(st.sampled_from(["man", "woman", "person", ""]), min_size=1, max_size=12))
def test_bounds_and_the_perfect_caption(values: list[str]) -> None:
    rows = [[{"gender": value}] for value in values]
    perfect = slot_accuracy([f"a {value} here" for value in values], rows, resamples=5)
    assert perfect.all_slots.value == 1
    silent = slot_accuracy(["nobody" for _ in values], rows, resamples=5)
    assert silent.slots["gender"].value == pytest.approx(values.count("") / len(values))


def test_bad_input() -> None:
    with pytest.raises(CorpusError, match="2 captions but slots of 1 pictures"):
        slot_accuracy(["a", "b"], [[]])
    with pytest.raises(CorpusError, match="No picture declares a slot"):
        slot_accuracy(["a"], [[]])
