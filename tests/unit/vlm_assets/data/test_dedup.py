import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.vlm_assets.data.pictures import encoded, picture
from vlm_assets.data.dedup import MAX_HASH_BITS, candidate_pairs, near_duplicates, signature
from vlm_assets.data.sources.openmoji import describe, read_people, render
from vlm_serving.images import decode_picture


def pairs(images: list[Image.Image]) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in near_duplicates([signature(image) for image in images])}


def candidates(hashes: np.ndarray) -> list[tuple[int, int]]:
    return [pair for chunk in candidate_pairs(hashes) for pair in zip(*(part.tolist() for part in chunk), strict=True)]


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_reencoded_copies_join(quality: int):
    image = picture(3, (240, 180))
    copy = Image.open(io.BytesIO(encoded(image, "JPEG", quality=quality)))
    assert pairs([image, copy, picture(4, (240, 180))]) == {(0, 1)}


@pytest.mark.parametrize("percent", [50, 75, 200])
def test_resized_copies_join(percent: int):
    image = picture(5, (240, 180))
    copy = image.resize((240 * percent // 100, 180 * percent // 100), Image.Resampling.BICUBIC)
    assert pairs([image, copy, picture(6, (240, 180))]) == {(0, 1)}


def test_colour_siblings_with_the_same_grey_edges_stay_apart():
    """The same drawing in red and in a green of the same brightness."""
    red, green = Image.new("RGB", (96, 96), "white"), Image.new("RGB", (96, 96), "white")
    red.paste((200, 0, 0), (20, 20, 70, 70))
    green.paste((0, 102, 0), (20, 20, 70, 70))
    assert signature(red).edges == signature(green).edges
    assert pairs([red, green]) == set()


def test_skin_tones_of_a_drawing_stay_apart():
    """These are the three closest families of drawings: the tone shows in a few cells only."""
    wanted = ("santa claus", "mrs claus", "a man guard", "a man mage", "a ninja")
    drawings = [drawing for drawing in read_people() if describe(drawing)[0][0].split(" with ")[0] in wanted]
    assert len(drawings) == 6 * len(wanted)
    assert pairs([decode_picture(render(drawing.svg, 112)) for drawing in drawings]) == set()


def test_no_pictures_and_one_picture_have_no_pairs():
    assert pairs([]) == pairs([picture(1)]) == set()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_candidates_are_exactly_the_pairs_within_seven_bits(data: st.DataObject):
    base = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12))
    flips = data.draw(st.lists(st.sets(st.integers(0, 63), max_size=9), max_size=12))
    hashes = np.array(base + [base[0] ^ sum(1 << bit for bit in flip) for flip in flips], dtype=np.uint64)
    found = candidates(hashes)
    expected = [
        (one, other)
        for one, other in combinations(range(len(hashes)), 2)
        if int(hashes[one] ^ hashes[other]).bit_count() <= MAX_HASH_BITS
    ]
    assert sorted(found) == expected, "each once"


def test_chunks_lose_no_pair(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vlm_assets.data.dedup.PAIRS_PER_CHUNK", 7)
    hashes = np.zeros(40, dtype=np.uint64)
    assert len(candidates(hashes)) == 40 * 39 // 2
