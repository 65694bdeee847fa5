import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter

from tests.unit.vlm_assets.data.pictures import picture, textured
from vlm_assets.data.quality import (
    FLAGS,
    Fault,
    PictureSignals,
    QualityLimits,
    entropy_bits,
    measure,
    picture_faults,
    sharpness,
)

LIMITS = QualityLimits()


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """A photograph that comes with a package: sharp, bright and of a person."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return Image.open(path).convert("RGB")


def row(image: Image.Image, **said: Any) -> dict[str, Any]:
    plain = {"width": image.width, "height": image.height, "format": "PNG", "file_name": "a.png", "mode": "RGB"}
    return {**plain, "frames": 1, **said}


def faults(image: Image.Image, **said: Any) -> list[Fault]:
    return picture_faults(row(image, **said), measure(image), LIMITS)


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (picture(1, (31, 64)), Fault("too_small", "shorter side 31 px < 32 px")),
        (picture(1, (32, 160)), Fault("too_elongated", "aspect ratio 5.00 > 4")),
        (Image.new("RGB", (64, 64), "navy"), Fault("no_content", "entropy 0.000 bits < 0.1 bits")),
    ],
)
def test_what_drops_comes_first_and_drops(image: Image.Image, fault: Fault):
    found = faults(image)[0]
    assert found == fault
    assert found.drops(LIMITS)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"file_name": "a.jpg"}, Fault("wrong_extension", "named .jpg, is PNG")),
        ({"file_name": "a.HEIC"}, Fault("wrong_extension", "named .heic, is PNG")),
        ({"format": "JPEG", "file_name": "a.jpg", "mode": "CMYK"}, Fault("converted_colours", "mode CMYK")),
        ({"mode": "I;16"}, Fault("converted_colours", "mode I;16")),
        ({"mode": "RGB;16"}, Fault("converted_colours", "mode RGB;16")),
        ({"frames": 12}, Fault("animated", "12 frames")),
    ],
)
def test_doubtful_files_are_flagged(said: dict[str, Any], fault: Fault):
    assert faults(textured(1), **said) == [fault]
    assert not fault.drops(LIMITS)
    assert fault.drops(QualityLimits(drop_flagged=(fault.reason,)))


@pytest.mark.parametrize(
    "said", [{"file_name": ""}, {"file_name": "v1.2 a"}, {"format": "JPEG", "file_name": "a.JPEG"}]
)
def test_names_that_say_nothing_else_are_fine(said: dict[str, Any]):
    assert faults(textured(1), **said) == []


def test_a_photograph_is_fine_until_it_is_spoilt(photograph: Image.Image):
    assert faults(photograph) == []
    spoilt = {
        "blurred": photograph.filter(ImageFilter.GaussianBlur(0.02 * max(photograph.size))),
        "dark": ImageEnhance.Brightness(photograph).enhance(0.1),
        "low_contrast": ImageEnhance.Contrast(photograph).enhance(0.05),
        "bright": Image.blend(photograph, Image.new("RGB", photograph.size, "white"), 0.97),
    }
    for reason, image in spoilt.items():
        assert reason in [fault.reason for fault in faults(image)]


def test_sharpness_hardly_depends_on_the_resolution(photograph: Image.Image):
    photograph = photograph.convert("L")
    small = photograph.resize((256 * photograph.width // photograph.height, 256), Image.Resampling.LANCZOS)
    large = photograph.resize((2 * photograph.width, 2 * photograph.height), Image.Resampling.LANCZOS)
    assert 0.5 < sharpness(large) / sharpness(small) < 2


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
def test_signals_of_any_size_are_in_bounds(width: int, height: int, level: int):
    image = Image.new("RGB", (width, height), (level, level, level))
    image.putpixel((0, 0), (255, 0, 0))
    signals = measure(image)
    assert 0 <= signals.entropy_bits <= 8 and signals.sharpness >= 0
    assert 0 <= signals.brightness <= 1 and 0 <= signals.contrast <= 0.5


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 1e5), st.floats(0.2, 8))
def test_only_shape_and_content_drop_by_default(brightness: float, contrast: float, sharp: float, entropy: float):
    signals = PictureSignals(entropy, sharp, brightness, contrast)
    found = picture_faults(row(picture(1)), signals)
    assert all(fault.reason in FLAGS and not fault.drops(LIMITS) for fault in found)
    assert ("dark" in [fault.reason for fault in found]) == (brightness < LIMITS.min_brightness)


def test_entropy_of_two_equal_halves_is_one_bit():
    image = Image.new("L", (64, 64), "black")
    image.paste("white", (0, 0, 32, 64))
    assert entropy_bits(image) == pytest.approx(1.0)


def test_a_re_encoded_photograph_has_the_same_signals(photograph: Image.Image):
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=90)
    one, other = measure(photograph), measure(Image.open(buffer).convert("RGB"))
    assert other.brightness == pytest.approx(one.brightness, abs=0.01)
    assert other.sharpness == pytest.approx(one.sharpness, rel=0.2)
