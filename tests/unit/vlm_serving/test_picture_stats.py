"""Brightness and contrast of pictures whose statistics are known."""

import numpy as np
import pytest
from PIL import Image

from vlm_serving.picture_stats import picture_statistics


@pytest.mark.parametrize(("colour", "brightness"), [("black", 0.0), ("white", 1.0), ((128, 128, 128), 128 / 255)])
def test_a_picture_of_one_grey_has_its_brightness_and_no_contrast(colour, brightness):
    statistics = picture_statistics(Image.new("RGB", (40, 30), colour))
    assert statistics.brightness == pytest.approx(brightness, abs=1e-9)
    assert statistics.contrast == pytest.approx(0.0, abs=1e-9)
    assert (statistics.width_px, statistics.height_px) == (40, 30)


def test_half_black_half_white_has_the_greatest_contrast():
    pixels = np.zeros((20, 20, 3), dtype=np.uint8)
    pixels[:, 10:] = 255
    statistics = picture_statistics(Image.fromarray(pixels))
    assert (statistics.brightness, statistics.contrast) == (0.5, 0.5)


def test_green_is_brighter_than_blue_as_to_the_eye():
    assert picture_statistics(Image.new("RGB", (4, 4), (0, 255, 0))).brightness == pytest.approx(0.587, abs=0.01)
    assert picture_statistics(Image.new("RGB", (4, 4), (0, 0, 255))).brightness == pytest.approx(0.114, abs=0.01)


def test_a_large_picture_gives_what_its_small_copy_gives():
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    large = small.resize((2000, 1200), Image.Resampling.NEAREST)
    a, b = picture_statistics(small), picture_statistics(large)
    assert b.brightness == pytest.approx(a.brightness, abs=0.01)
    assert b.contrast == pytest.approx(a.contrast, abs=0.02)  # blocks that straddle two pixels average them
    assert (b.width_px, b.height_px) == (2000, 1200)


def test_the_thinnest_picture_is_measured():
    statistics = picture_statistics(Image.new("RGB", (5000, 1), "white"))
    assert (statistics.brightness, statistics.width_px, statistics.height_px) == (1.0, 5000, 1)
