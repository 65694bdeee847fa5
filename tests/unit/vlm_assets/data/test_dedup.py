import io
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from tests.unit.vlm_assets.data.pictures import encoded, picture
from vlm_assets.data.dedup import Links, near_duplicates, signature
from vlm_assets.data.sources.openmoji import describe, read_people, render
from vlm_serving.images import decode_picture


def found(images: list[Image.Image]) -> Links:
    return near_duplicates([signature(image) for image in images])


def pairs(images: list[Image.Image]) -> set[tuple[int, int]]:
    return {(first, second) for first, second, _ in found(images).rows()}


def scene(seed: int, size: tuple[int, int] = (240, 180)) -> Image.Image:
    """Coloured blocks, finer than those of `picture`, so that a shift shows."""
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


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


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_darker_and_brighter_copies_join(factor: float):
    image = picture(7, (240, 180))
    assert pairs([image, ImageEnhance.Brightness(image).enhance(factor), picture(8, (240, 180))]) == {(0, 1)}


@pytest.mark.parametrize("older", ["original", "crop"])
@pytest.mark.parametrize("trims", [(12, 9, 12, 9), (12, 0, 0, 9), (0, 0, 7, 3), (5, 9, 0, 0)])
def test_crops_join_whichever_comes_first(trims: tuple[int, int, int, int], older: str):
    image = scene(9)
    left, top, right, bottom = trims
    crop = image.crop((left, top, 240 - right, 180 - bottom))
    assert pairs([image, crop, scene(10)] if older == "original" else [crop, image, scene(10)]) == {(0, 1)}


def test_a_quarter_of_a_picture_is_another_picture():
    image = scene(11)
    assert pairs([image, image.crop((0, 0, 120, 90))]) == set()


def test_colour_siblings_with_the_same_grey_edges_stay_apart():
    """The same drawing in red and in a green of the same brightness."""
    red, green = Image.new("RGB", (96, 96), "white"), Image.new("RGB", (96, 96), "white")
    red.paste((200, 0, 0), (20, 20, 70, 70))
    green.paste((0, 102, 0), (20, 20, 70, 70))
    assert np.array_equal(np.asarray(red.convert("L")), np.asarray(green.convert("L")))
    assert pairs([red, green]) == set()


@pytest.mark.parametrize("colour", [(60, 60, 160), (150, 110, 40), (40, 120, 90)])
def test_a_photograph_with_another_dress_stays_apart(colour: tuple[int, int, int]):
    red, other = scene(12), scene(12)
    red.paste((160, 60, 60), (80, 40, 160, 160))
    other.paste(colour, (80, 40, 160, 160))
    assert pairs([red, other]) == set()


def test_skin_tones_of_a_drawing_stay_apart():
    """These are the closest families of drawings: the tone shows in a few cells only."""
    wanted = ("santa claus", "mrs claus", "a man guard", "a man mage", "a ninja", "a detective", "a man detective")
    drawings = [drawing for drawing in read_people() if describe(drawing)[0][0].split(" with ")[0] in wanted]
    assert len(drawings) == 6 * len(wanted)
    assert pairs([decode_picture(render(drawing.svg, 112)) for drawing in drawings]) == set()


def test_no_pictures_and_one_picture_have_no_pairs():
    assert pairs([]) == pairs([picture(1)]) == set()
    assert len(found([])) == 0


def test_flat_pictures_join_by_colour_alone():
    shades = [Image.new("RGB", (40, 40), colour) for colour in ("navy", "navy", "maroon", (0, 0, 131))]
    assert pairs(shades) == {(0, 1), (0, 3)}, "the second is the first's look, and needs no pair of its own"


def test_equal_thumbnails_share_the_look_of_the_oldest():
    same, near, other = picture(1), Image.open(io.BytesIO(encoded(picture(1), "JPEG", quality=60))), picture(2)
    duplicates = found([same, other, same, near, same])
    assert duplicates.look.tolist() == [0, 1, 0, 3, 0]
    assert (duplicates.first.tolist(), duplicates.second.tolist()) == ([0], [3])
    assert len(duplicates) == len(list(duplicates.rows())) == 3


def test_distances_are_those_of_the_thumbnails():
    one, other = np.full((32, 32, 3), 100, np.uint8), np.full((32, 32, 3), 100, np.uint8)
    other[:8] += 4
    duplicates = near_duplicates([one, other])
    assert duplicates.mean_levels.tolist() == [1.0]
    assert duplicates.cell_levels.tolist() == [4.0]


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=10), st.integers(0, 10))
def test_appended_pictures_change_nothing_among_old_ones(kinds: list[tuple[int, int]], count: int):
    """Pictures, their crops, relit and plain copies in any order."""

    def made(seed: int, kind: int) -> Image.Image:
        image = scene(seed)
        crops = {1: (12, 9, 228, 171), 2: (0, 5, 236, 180)}
        return image.crop(crops[kind]) if kind in crops else ImageEnhance.Brightness(image).enhance(1 + kind / 40)

    signatures = [signature(made(seed, kind)) for seed, kind in kinds]
    old = {pair[:2] for pair in near_duplicates(signatures[:count], every_pair=True).rows()}
    new = {pair[:2] for pair in near_duplicates(signatures, every_pair=True).rows()}
    assert old == {(first, second) for first, second in new if second < count}
    for one, other in combinations(range(len(kinds)), 2):
        if kinds[one][0] != kinds[other][0]:
            assert (one, other) not in new
