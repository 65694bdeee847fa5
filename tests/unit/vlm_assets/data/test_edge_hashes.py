from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from vlm_assets.data.edge_hashes import (
    BANDS,
    MAX_HASH_BITS,
    WINDOWS,
    band_keys,
    candidate_pairs,
    window_hashes,
)


def thumbs(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures, every third one a noisy copy of the one before."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
    coarse[2::3] = coarse[1::3][: len(coarse[2::3])] + rng.integers(-12, 13, coarse[2::3].shape)
    return np.clip(coarse, 0, 255).astype(np.uint8)


def found(pictures: np.ndarray) -> set[tuple[int, int]]:
    return {pair for part in candidate_pairs(pictures) for pair in zip(*(x.tolist() for x in part[:2]), strict=True)}


def test_the_first_window_is_the_whole_picture():
    pictures = thumbs(5)
    assert WINDOWS[0] == (0, 0, 0, 0)
    assert np.array_equal(window_hashes(pictures)[:, 0], window_hashes(pictures, ((0, 0),))[:, 0])


@pytest.mark.parametrize("window", range(len(WINDOWS)))
def test_a_window_hashes_like_the_crop_that_it_shows(window: int):
    left, right, top, bottom = WINDOWS[window]
    large = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3)).repeat(80, axis=1).repeat(80, axis=2)  # 1280 px
    crop = large[:, round(top * 1280) : 1280 - round(bottom * 1280), round(left * 1280) : 1280 - round(right * 1280)]

    def small(picture: np.ndarray) -> np.ndarray:
        image = Image.fromarray(picture[0].astype(np.uint8)).resize((32, 32), Image.Resampling.BOX)
        return np.asarray(image)[None]

    bits = np.bitwise_count(window_hashes(small(large))[0] ^ window_hashes(small(crop))[0, 0]).sum(axis=1)
    assert bits[window] <= 8, "of 126"


def test_bands_take_the_hash_apart():
    words = window_hashes(thumbs(4))
    keys = [band_keys(words, band) for band in range(BANDS)]
    assert sum(int(np.bitwise_count(key).sum()) for key in keys) == int(np.bitwise_count(words).sum())


def test_candidates_are_the_pairs_that_agree_in_a_band_and_nearly_in_all_bits():
    pictures = thumbs(60)
    words = window_hashes(pictures)
    candidates = found(pictures)
    for one, other in combinations(range(60), 2):
        bits = np.bitwise_count(words[one] ^ words[other, 0]).sum(axis=1)
        meet = any((band_keys(words[one], band) == band_keys(words[other, 0], band)).any() for band in range(BANDS))
        assert ((one, other) in candidates) == (meet and bits.min() <= MAX_HASH_BITS)
    assert {(one, one + 1) for one in range(1, 59, 3)} <= candidates


def test_chunks_lose_no_pair(monkeypatch: pytest.MonkeyPatch):
    pictures = np.concatenate([thumbs(30), thumbs(30)])
    whole = found(pictures)
    for name, size in (("ROWS_PER_CHUNK", 7), ("PAIRS_PER_CHUNK", 5), ("HASHES_PER_CHUNK", 3)):
        monkeypatch.setattr(f"vlm_assets.data.edge_hashes.{name}", size)
    assert found(pictures) == whole
    assert len(whole) >= 60


@pytest.mark.parametrize(("level", "expected"), [(100 + 40, set()), (100 + 20, {(0, 1), (1, 0)})])
def test_one_patch_far_off_is_enough(level: int, expected: set[tuple[int, int]]):
    """On a white ground, where a patch is a small part of all."""
    pictures = np.full((2, 32, 32, 3), 255, np.uint8)
    pictures[:, 8:24, 8:24] = 100
    pictures[1, 8:16, 8:16] = level, 100, 100
    assert found(pictures) == expected


def test_a_colour_far_off_is_no_candidate():
    """The same edges on 40 grounds: without a look at the colour every picture meets every other."""
    grounds = np.linspace(0, 200, 40).astype(np.uint8)
    pictures = np.zeros((40, 32, 32, 3), np.uint8)
    pictures[..., 0] = grounds[:, None, None]
    pictures[..., 2] = 200 - grounds[:, None, None]
    candidates = found(pictures)
    assert 0 < len(candidates) < 40 * 39 / 4
    assert all(abs(int(grounds[one]) - int(grounds[other])) < 40 for one, other in candidates)
