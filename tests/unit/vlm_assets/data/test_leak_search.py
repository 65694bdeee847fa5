"""Torn near duplicates are found without a word from the splitter."""

from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tests.unit.vlm_assets.data.test_dedup import scene
from vlm_assets.data.alignment import Bytes
from vlm_assets.data.dedup import DEFAULT_THRESHOLDS, Thresholds, near_duplicates, signature
from vlm_assets.data.leak_search import torn_pairs


def thumbnails() -> Bytes:
    """Eight scenes, each with a crop, a darker copy and an equal one: 32 in all, scene by scene."""
    scenes = [scene(seed) for seed in range(8)]
    copies = [(one, one.crop((9, 5, 236, 176)), ImageEnhance.Brightness(one).enhance(0.93), one) for one in scenes]
    return np.stack([signature(image) for group in copies for image in group])


def torn(thumbs: Bytes, split: list[int], thresholds: Thresholds = DEFAULT_THRESHOLDS) -> set[tuple[int, int]]:
    return set(torn_pairs(thumbs, np.array(split), thresholds))


def test_clusters_that_are_whole_are_not_torn():
    assert torn(thumbnails(), [scene % 3 for scene in range(8) for _ in range(4)]) == set()


def test_every_torn_pair_is_found_and_no_other():
    split = np.random.default_rng(0).integers(0, 3, 32).tolist()
    thumbs = thumbnails()
    pairs = near_duplicates(thumbs, every_pair=True)
    near = {(first, second) for first, second, _ in pairs.rows()}
    expected = {(one, other) for one, other in near if split[one] != split[other]}
    assert len(near) == 8 * 4 and expected
    assert torn(thumbs, split) == expected


def test_equal_thumbnails_are_torn_though_nothing_needs_comparing():
    equal = np.stack([np.asarray(Image.new("RGB", (32, 32), "navy"))] * 4)
    assert torn(equal, [0, 0, 1, 0]) == {(0, 2)}


def test_the_limits_decide():
    one = np.full((32, 32, 3), 100, np.uint8)
    pair = np.stack([one, one + 4])
    assert torn(pair, [0, 1]) == {(0, 1)}, "4 % of brightness are free"
    pair[1, :8] += 4
    pair[1, :8, ::2] += 12
    assert torn(pair, [0, 1], Thresholds(255.0, 255.0)) == {(0, 1)}
    assert torn(pair, [0, 1], Thresholds(0.1, 255.0)) == set()


@pytest.mark.parametrize("count", [0, 1])
def test_few_pictures_have_no_pairs(count: int):
    assert torn(thumbnails()[:count], [0] * count) == set()


def test_thumbnails_may_lie_on_the_disk(tmp_path):
    np.save(tmp_path / "t.npy", thumbnails())
    split = [number for _, number in product(range(8), (0, 0, 1, 0))]
    assert torn(np.load(tmp_path / "t.npy", mmap_mode="r"), split) == torn(thumbnails(), split) != set()
