import pytest
from PIL import Image

from tests.unit.vlm_assets.data.pictures import picture
from vlm_assets.data.quality import Fault, QualityLimits, caption_fault, entropy_bits, picture_fault


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (picture(1), None),
        (picture(1, (32, 128)), None),
        (picture(1, (31, 64)), Fault("too_small", "shorter side 31 px < 32 px")),
        (picture(1, (32, 160)), Fault("too_elongated", "aspect ratio 5.00 > 4")),
        (Image.new("RGB", (64, 64), "navy"), Fault("no_content", "entropy 0.000 bits < 0.1 bits")),
    ],
)
def test_pictures(image: Image.Image, fault: Fault | None):
    assert picture_fault(image) == fault


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("a coat", None),
        (" x ", Fault("caption_too_short", "1 characters < 2")),
        ("y" * 11, Fault("caption_too_long", "11 characters > 10")),
    ],
)
def test_captions(caption: str, fault: Fault | None):
    assert caption_fault(caption, QualityLimits(max_caption_characters=10)) == fault


def test_entropy_of_two_equal_halves_is_one_bit():
    image = Image.new("RGB", (64, 64), "black")
    image.paste("white", (0, 0, 32, 64))
    assert entropy_bits(image) == pytest.approx(1.0)
