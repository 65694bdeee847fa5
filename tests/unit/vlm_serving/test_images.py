"""Bytes to RGB: what must come out right, and what must be refused with which words."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm_serving.errors import PictureError, PictureTooLargeError, UnsupportedPictureError
from vlm_serving.images import PictureLimits, decode_picture
from vlm_serving.preprocessing import PreprocessingContract, model_pixels

CONTRACT = PreprocessingContract(image_size_px=16, bos_token_id=5, eos_token_id=3, pad_token_id=0)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size in its header and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0"))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_allowed_format_becomes_rgb(kind: str) -> None:
    picture = decode_picture(encoded(Image.new("RGB", (20, 10), (200, 30, 30)), kind))
    assert (picture.mode, picture.size) == ("RGB", (20, 10))
    assert np.abs(np.asarray(picture, dtype=int)[5, 5] - (200, 30, 30)).max() <= 6


def test_a_phone_picture_is_turned_upright() -> None:
    sideways = Image.new("RGB", (20, 10), "white")
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_picture(encoded(sideways, "JPEG", exif=exif)).size == (10, 20)


def test_transparency_lies_over_white() -> None:
    assert decode_picture(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))).getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] * 256)
    assert decode_picture(encoded(palette, transparency=0)).getpixel((1, 1)) == (255, 255, 255)


def test_cmyk_and_sixteen_bit_grey_keep_their_tones() -> None:
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    pixel = decode_picture(encoded(red, "JPEG")).getpixel((3, 3))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 200 > 60 > pixel[1]
    middle = Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16))
    assert decode_picture(encoded(middle)).getpixel((3, 3)) == (127, 127, 127)


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode_picture(data).getpixel((2, 2)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", PictureError, r"empty \(0 bytes\)"),
        (
            b"not a picture at all",
            UnsupportedPictureError,
            r"not a readable picture .*Allowed: JPEG, PNG, WEBP, GIF, BMP",
        ),
        (encoded(Image.new("RGB", (9, 9)), "TIFF"), UnsupportedPictureError, "not a readable picture"),
        (encoded(Image.effect_noise((64, 64), 90))[:700], PictureError, "cannot be decoded .*damaged or cut off"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900], PictureError, "cannot be decoded"),
        (bomb(30_000, 30_000), PictureTooLargeError, r"pixels.* the limit is 40,000,000"),
        (bomb(8_000, 8_000), PictureTooLargeError, r"8000 x 8000 = 64,000,000 pixels; the limit is 40,000,000"),
        (bomb(100, 100), PictureError, "cannot be decoded"),
    ],
)
def test_a_bad_picture_is_refused_with_reason_and_limit(data: bytes, error: type[PictureError], text: str) -> None:
    with pytest.raises(error, match=text):
        decode_picture(data)


def test_too_many_bytes_are_refused_before_decoding() -> None:
    with pytest.raises(PictureTooLargeError, match=r"has 11 bytes; the limit is 10"):
        decode_picture(b"x" * 11, PictureLimits(max_bytes=10))


def test_model_pixels_are_the_contract_s_square() -> None:
    pixels = model_pixels(Image.new("RGB", (40, 10), (1, 2, 3)), CONTRACT)
    assert (pixels.shape, pixels.dtype) == ((3, 16, 16), np.uint8)
    assert pixels[:, 8, 8].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="takes RGB, got mode L"):
        model_pixels(Image.new("L", (4, 4)), CONTRACT)


def test_a_picture_at_the_model_s_size_passes_untouched() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(model_pixels(Image.fromarray(noise), CONTRACT), noise.transpose(2, 0, 1))
