"""Files as they come: every kind that is read, and every kind that is refused, with the reason it is counted under."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.unit.vlm_assets.data.pictures import encoded, picture
from vlm_assets.data.picture_file import ORIENTATION, fault_of, pixel_sha256, read_picture
from vlm_serving.errors import PictureError

IMAGE = picture(1)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP"]


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(IMAGE, "JPEG", exif=exif, quality=95)


def see_through(alpha: int) -> Image.Image:
    image = IMAGE.copy()
    image.putalpha(alpha)
    return image


def deep_rgb_png() -> bytes:
    """A 16-bit RGB PNG, which Pillow reads but cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    levels = (np.asarray(IMAGE, dtype=np.uint16) * 257).astype(">u2")  # (48, 64, 3)
    lines = b"".join(b"\0" + line.tobytes() for line in levels)
    head = struct.pack(">IIBBBBB", IMAGE.width, IMAGE.height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def deep_grey() -> Image.Image:
    return Image.fromarray((np.asarray(IMAGE.convert("L")).astype(np.uint16)) * 257)


MORE_FRAMES = {"save_all": True, "append_images": [picture(2), picture(3)]}
PLAIN = {"mode": "RGB", "orientation": 1, "frames": 1, "transparent": False, "width": 64, "height": 48}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded(IMAGE, "JPEG"), {"format": "JPEG"}),
        (encoded(IMAGE, "BMP"), {"format": "BMP"}),
        (encoded(IMAGE, "MPO", save_all=True, append_images=[picture(2)]), {"format": "JPEG"}),  # as phones write it
        (encoded(IMAGE.convert("CMYK"), "JPEG"), {"format": "JPEG", "mode": "CMYK"}),
        (encoded(IMAGE.convert("L"), "JPEG"), {"format": "JPEG", "mode": "L"}),
        (encoded(deep_grey()), {"format": "PNG", "mode": "I;16"}),
        (deep_rgb_png(), {"format": "PNG", "mode": "RGB;16"}),
        (encoded(see_through(255)), {"format": "PNG", "mode": "RGBA"}),
        (encoded(see_through(254)), {"format": "PNG", "mode": "RGBA", "transparent": True}),
        (encoded(IMAGE.quantize(8), "PNG", transparency=0), {"format": "PNG", "mode": "P", "transparent": True}),
        (encoded(IMAGE, "GIF", **MORE_FRAMES), {"format": "GIF", "mode": "P", "frames": 3}),
        (encoded(IMAGE, "WEBP", **MORE_FRAMES), {"format": "WEBP", "frames": 3}),
        (encoded(IMAGE, "PNG", **MORE_FRAMES), {"format": "PNG", "frames": 3}),
        (turned(3), {"format": "JPEG", "orientation": 3}),
        (turned(6), {"format": "JPEG", "orientation": 6, "width": 48, "height": 64}),
    ],
)
def test_what_a_file_says_of_itself(data: bytes, said: dict[str, object]):
    file, pixels = read_picture(data)
    seen = {name: getattr(file, name) for name in (*PLAIN, "format")}
    assert seen == {**PLAIN, **said}
    assert file.size_bytes == len(data)
    assert (pixels.mode, pixels.size) == ("RGB", (file.width, file.height))


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_directions_that_are_none_count_as_upright(value: int):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    file, pixels = read_picture(encoded(IMAGE, "JPEG", exif=exif))
    assert (file.orientation, pixels.size) == (1, IMAGE.size)


@pytest.mark.parametrize("data", [encoded(IMAGE.convert("CMYK"), "JPEG", quality=95), encoded(deep_grey()), turned(6)])
def test_colours_and_directions_survive(data: bytes):
    """Inverted CMYK, clipped 16 bits or a picture on its side would be far off."""
    _, pixels = read_picture(data)
    meant = IMAGE.rotate(-90, expand=True) if pixels.size == (48, 64) else IMAGE
    gap = np.asarray(pixels.convert("L"), dtype=int) - np.asarray(meant.convert("L"), dtype=int)
    assert np.abs(gap).mean() < 4


def refusal(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(data)
    return fault_of(caught.value, data)


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_file_is_truncated(kind: str):
    data = encoded(IMAGE, kind)
    assert refusal(data[: len(data) // 2]) == "truncated_picture"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"a text file that somebody named .jpg\n", "not_a_picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        (encoded(IMAGE, "TIFF"), "unsupported_format"),
        (encoded(IMAGE, "AVIF"), "unsupported_format"),
        (encoded(IMAGE)[:60] + b"\0" * 400 + encoded(IMAGE)[460:], "damaged_picture"),
        (encoded(Image.new("1", (30_000, 30_000))), "picture_too_large"),  # 110 kB that claim 900 megapixels
        (encoded(IMAGE) + b"\0" * 20 * 1024 * 1024, "picture_too_large"),
    ],
    ids=["empty", "text", "svg", "tiff", "avif", "damaged", "bomb", "heavy"],
)
def test_each_refusal_has_its_reason(data: bytes, reason: str):
    assert refusal(data) == reason


@given(st.sampled_from(FORMATS), st.integers(0, 10_000), st.binary(max_size=40))
def test_spoilt_bytes_give_a_picture_or_a_reason(kind: str, at: int, noise: bytes):
    data = encoded(IMAGE, kind)
    at %= len(data)
    data = data[:at] + noise + data[at + len(noise) :]
    try:
        file, pixels = read_picture(data)
    except PictureError as error:
        assert fault_of(error, data) in {
            "not_a_picture", "unsupported_format", "truncated_picture", "damaged_picture", "picture_too_large"
        }  # fmt: skip
    else:
        assert pixels.size == (file.width, file.height) and pixels.mode == "RGB"


def test_a_damaged_later_frame_leaves_the_first():
    data = encoded(IMAGE, "GIF", **MORE_FRAMES)
    file, _ = read_picture(data[: 2 * len(data) // 3])
    assert file.frames >= 2


def test_equal_pixels_have_equal_digests_whatever_the_format():
    digests = {pixel_sha256(read_picture(encoded(IMAGE, kind))[1]) for kind in ("PNG", "BMP")}
    assert digests == {pixel_sha256(IMAGE)} != {pixel_sha256(IMAGE.transpose(Image.Transpose.TRANSPOSE))}
