"""What contradicts what: labels and slots, and not five people's sentences."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from vlm_assets.data.contradictions import (
    MAX_STATEMENTS,
    content_words,
    contradiction,
    contradictions,
    statements,
)
from vlm_assets.data.dedup import Links

# Written as people describe photographs for COCO: some sentences of one photograph have no word in common.
PHOTOGRAPHS = [
    (
        "Two dogs race through a meadow",
        "The brown animal and its black friend gallop outside",
        "Dogs running fast over the grass",
        "A pair of pets at full speed in a green field",
        "Some canines chase each other in a meadow",
    ),
    (
        "A boy high in the air above dirt and water near red cliffs",
        "A child jumps off a dusty bank over a creek",
        "a young person in yellow shorts leaps into the river",
        "Someone with a grey shirt springs from the shore",
        "The kid dives towards the stream below",
    ),
    (
        "A man riding a wave on top of a surfboard",
        "A surfer in a wetsuit balances in the ocean",
        "Someone is enjoying the sea on his board",
        "A guy surfing near the beach",
        "the athlete is performing a trick in blue water",
    ),
]


def picture(*rows: str | list[str], slots: Mapping[str, Mapping[str, str]] | None = None, name: str = "p") -> Any:
    """A picture whose rows say these captions; `slots` by caption."""
    said = [[row] if isinstance(row, str) else row for row in rows]
    captions = list(dict.fromkeys(caption for row in said for caption in row))
    return {
        "image_id": name,
        "captions": captions,
        "slots": json.dumps([(slots or {}).get(caption, {}) for caption in captions] if slots else []),
        "source_rows": [f"{name} row {number}" for number in range(len(rows))],
        "row_captions": [[captions.index(caption) for caption in row] for row in said],
    }


def conflict(*rows: str | list[str], slots: Mapping[str, Mapping[str, str]] | None = None) -> tuple[str, str] | None:
    found = contradiction(statements(picture(*rows, slots=slots)))
    return (found[0].caption, found[1].caption) if found else None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (("Dress", "Shoes"), ("Dress", "Shoes")),
        (("a red dress", "a pair of shoes"), ("a red dress", "a pair of shoes")),
        (("a pair of pants", "a pair of shoes"), ("a pair of pants", "a pair of shoes")),
        (("a long dress with sleeves on a hanger", "handbag"), ("a long dress with sleeves on a hanger", "handbag")),
        (("a red dress", "the dresses", "a shoe"), ("a red dress", "a shoe")),
        (("dress", "dress", "shoes", "shoes"), ("dress", "shoes")),
        (("a red dress", "the dresses"), None),
        (("a t-shirt", "tshirt"), None),
        (("a dog", "two dogs"), None),
        (("a red dress", "it is the"), None),  # nothing said, nothing contradicted
        (("red", "dress", "a red dress"), None),  # the third row leads from one to the other
        (("a red dress", "a red dress"), None),
        (("a red dress",), None),
        ((["a red dress", "a pair of shoes"],), None),  # one row may say what it likes
        ((["a gown", "a red dress"], "dress"), None),
    ],
)
def test_labels_without_a_word_in_common(rows: tuple[Any, ...], expected: tuple[str, str] | None):
    assert conflict(*rows) == expected


@pytest.mark.parametrize("captions", PHOTOGRAPHS)
def test_five_honest_descriptions_are_no_contradiction(captions: tuple[str, ...]):
    words = [content_words([caption]) for caption in captions]
    assert any(not one & other for one in words for other in words), "else this would show nothing"
    assert conflict(*captions) is None
    assert all(conflict(one, other) is None for one in captions for other in captions)


def test_a_label_among_descriptions_of_something_else_is_one():
    assert conflict(*PHOTOGRAPHS[0], "a handbag") == (PHOTOGRAPHS[0][0], "a handbag")
    assert conflict(*PHOTOGRAPHS[0], "a dog") is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"label": "dress"}, {"label": "shoes"}, True),
        ({"label": "dress"}, {"label": "dress"}, False),
        ({"label": "dress", "kids": "kids"}, {"label": "dress", "kids": ""}, False),  # "" = does not say
        ({"label": "dress", "colour": "red"}, {"label": "dress", "colour": "blue"}, True),
        ({"label": "dress"}, {"colour": "blue"}, False),
    ],
)
def test_slots_tell_where_words_do_not(one: Mapping[str, str], other: Mapping[str, str], expected: bool):
    """Both captions share a word, and are long: without slots there is nothing to tell."""
    captions = ("this lovely garment comes in our best cotton", "this garment is worn by everybody in summer")
    slots = dict(zip(captions, (one, other), strict=True))
    assert (conflict(*captions, slots=slots) is not None) == expected


def test_a_row_with_several_values_of_a_slot_agrees_with_each():
    slots = {"a dress": {"label": "dress"}, "a gown": {"label": "gown"}, "a robe": {"label": "gown"}}
    assert conflict(["a dress", "a gown"], "a robe", slots=slots) is None


def test_equal_slots_outweigh_different_words():
    assert conflict("a pullover", "a jumper", slots={"a pullover": {"label": "1"}, "a jumper": {"label": "1"}}) is None


def links(*pairs: tuple[int, int], looks: tuple[int, ...] = (0, 1, 2, 3)) -> Links:
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Links(np.array(looks), ends[:, 0], ends[:, 1], np.ones(len(ends)), np.ones(len(ends)))


def test_near_duplicates_contradict_each_other_too():
    pictures = {0: picture("Dress", name="a"), 2: picture("handbag", name="c"), 3: picture("a dress", name="d")}
    found = {at: fault.detail for at, fault in contradictions(pictures, links((0, 2), (0, 3)))}
    assert found == dict.fromkeys((0, 2), "'Dress' (a row 0) and 'handbag' (c row 0)")
    assert dict(contradictions(pictures, links((0, 3)))) == {}
    assert set(dict(contradictions(pictures, links(looks=(0, 1, 0, 3))))) == {0, 2}, "equal thumbnails are, too"


def test_a_picture_that_is_gone_contradicts_nothing():
    assert dict(contradictions({0: picture("Dress")}, links((0, 1), (1, 2)))) == {}


def test_each_picture_is_named_once():
    pictures = {at: picture(caption, name=caption) for at, caption in enumerate(("Dress", "Shoes", "Hat"))}
    found = list(contradictions(pictures, links((0, 1), (0, 2), (1, 2))))
    assert [at for at, _ in found] == [0, 1, 2]


def test_near_duplicates_with_five_sentences_each_do_not():
    pictures = {0: picture(*PHOTOGRAPHS[0], name="a"), 1: picture(*reversed(PHOTOGRAPHS[0]), name="b")}
    assert dict(contradictions(pictures, links((0, 1)))) == {}


def test_of_a_picture_with_very_many_rows_some_will_do():
    assert len(statements(picture(*[f"label {number}" for number in range(1000)]))) == MAX_STATEMENTS


def test_content_words():
    assert content_words(["A red coat with a belt", "the Coat"]) == {"red", "coat", "belt"}
