"""Bytes to RGB: what must come out right, and what must be refused with which words."""

import hashlib
import io
import json
import struct
import time
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm_serving.errors import PictureError, PictureTooLargeError, UnsupportedPictureError
from vlm_serving.images import PictureLimits, decode_picture, open_picture
from vlm_serving.picture_formats import foreign_format
from vlm_serving.preprocessing import PreprocessingContract, decode_for_model, model_pixels
from vlm_serving.resizing import FAST, PILLOW

CONTRACT = PreprocessingContract(image_size_px=16, bos_token_id=5, eos_token_id=3, pad_token_id=0)


def contract_of(side_px: int, resizer: str = FAST) -> PreprocessingContract:
    return PreprocessingContract(side_px, 5, 3, 0, resizer=resizer)


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


def test_a_phone_s_jpeg_with_a_second_picture_is_the_first_one() -> None:
    first, second = Image.effect_noise((400, 300), 90).convert("RGB"), Image.new("RGB", (400, 300), "blue")
    plain, double = encoded(first, "JPEG"), encoded(first, "MPO", save_all=True, append_images=[second])
    assert open_picture(double).format == "JPEG"
    assert decode_picture(double).tobytes() == decode_picture(plain).tobytes()
    assert np.array_equal(decode_for_model(double, CONTRACT).pixels, decode_for_model(plain, CONTRACT).pixels)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2", "MP4"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"8BPS\0\1", "PSD"),
        (b"%PDF-1.7", "PDF"),
        (b"\n <svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!DOCTYPE svg>\n<svg/>", "SVG"),
        (b"<?xml version='1.0'?><note/>", ""),
        (b"\xff\xd8\xff\xe0", ""),
        (b"hello", ""),
        (b"", ""),
    ],
)
def test_formats_that_are_not_read_are_named(data: bytes, name: str) -> None:
    assert foreign_format(data) == name


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", PictureError, r"empty \(0 bytes\)"),
        (
            b"not a picture at all",
            UnsupportedPictureError,
            r"not a readable picture .*Allowed: JPEG, PNG, WEBP, GIF, BMP",
        ),
        (
            encoded(Image.new("RGB", (9, 9)), "TIFF"),
            UnsupportedPictureError,
            r"^The file is TIFF, which is not read\. Allowed: JPEG, PNG, WEBP, GIF, BMP\. Convert it\.$",
        ),
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


def test_transparency_is_exact_across_bands_and_modes() -> None:
    generator = np.random.default_rng(0)
    colours = Image.fromarray(generator.integers(0, 256, (600, 7, 4), dtype=np.uint8), "RGBA")
    palette = colours.convert("RGB").quantize(16)
    data = [encoded(colours), encoded(colours.convert("LA")), encoded(palette, transparency=bytes(range(0, 256, 16)))]
    data.append(encoded(palette, "GIF", transparency=3))
    for one in data:
        whole = Image.open(io.BytesIO(one)).convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
        assert decode_picture(one).tobytes() == expected.tobytes()


def test_sixteen_bits_per_channel_and_other_bitmaps_keep_their_colours() -> None:
    """PNGs of 16-bit RGB and RGBA, and BMPs of 5 bits per channel and with run lengths, written by hand."""
    rows = b"".join(b"\0" + struct.pack(">3H", 51_400, 12_850, 0) * 8 for _ in range(8))
    assert decode_picture(png_of(8, 8, 16, 2, rows)).getpixel((4, 4)) == (200, 50, 0)
    rows = b"".join(b"\0" + struct.pack(">4H", 51_400, 12_850, 0, 0) * 8 for _ in range(8))
    assert decode_picture(png_of(8, 8, 16, 6, rows)).getpixel((4, 4)) == (255, 255, 255)
    fifteen = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 0, 4, 0, 0, 0, 0) + struct.pack("<2H", 31 << 10, 31)
    assert decode_picture(bmp_of(fifteen, 54)).tobytes() == bytes([255, 0, 0, 0, 0, 255])
    header = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 8, 1, 4, 0, 0, 2, 0)
    runs = header + bytes([0, 0, 255, 0, 0, 255, 0, 0]) + bytes([3, 0, 1, 1, 0, 1])
    assert decode_picture(bmp_of(runs, 62)).tobytes() == bytes([255, 0, 0] * 3 + [0, 255, 0])


def png_of(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def bmp_of(rest: bytes, pixels_at: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 14 + len(rest), 0, 0, pixels_at) + rest


def test_an_animated_webp_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pixel = decode_picture(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])).getpixel((2, 2))
    assert isinstance(pixel, tuple) and pixel[0] > 240 > 15 > pixel[2]


def stuffed_png(late: bool, count: int) -> bytes:
    data = encoded(Image.new("RGB", (9, 9)))
    at = len(data) - 12 if late else 33
    return data[:at] + chunk(b"prVt", b"") * count + data[at:]


def stuffed_jpeg(part: bytes, count: int) -> bytes:
    data = encoded(Image.new("RGB", (9, 9)), "JPEG")
    return data[:2] + part * count + data[2:]


def stuffed_gif(count: int) -> bytes:
    data = encoded(Image.new("P", (9, 9)), "GIF")
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:at] + b"\x21\xfe\x01a\0" * count + data[at:]


def scanned_jpeg(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again, each time empty."""
    data = encoded(Image.new("L", (640, 480)), "JPEG", progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:-2] + data[at : at + 2 + data[at + 3]] * count + data[-2:]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (stuffed_png(late=False, count=170_000), "header has too many parts"),
        (stuffed_png(late=True, count=170_000), "The PNG picture is cut into too many parts"),
        (stuffed_jpeg(b"\xff", 2_000_000), "header has too many parts"),
        (stuffed_jpeg(b"\xff\xe1\0\x0aExif\0\0xx", 170_000), "header has too many parts"),
        (stuffed_gif(400_000), "header has too many parts"),
        (scanned_jpeg(150_000), r"^The JPEG has 150,\d{3} scans; the limit is 100\. Save it again as a plain one\.$"),
    ],
    ids=["chunks before", "chunks behind", "fill bytes", "exif", "comments", "scans"],
)
def test_two_mebibytes_of_empty_parts_cost_no_time(data: bytes, text: str) -> None:
    started_s = time.thread_time()
    with pytest.raises(PictureError, match=text):
        decode_picture(data)
    assert time.thread_time() - started_s < 1  # 0.3 s at most on an idle core; unbounded the last takes minutes


def test_a_large_run_length_bmp_is_refused_for_pillow_decodes_it_pixel_by_pixel() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 8000, 5000, 1, 8, 1, 4, 0, 0, 2, 0)
    with pytest.raises(PictureTooLargeError, match=r"40,000,000 pixels; the limit of a run-length BMP is 4,000,000\."):
        decode_picture(bmp_of(header + bytes(8) + bytes([1, 0, 0, 0]) * 5000, 62))


def test_honest_files_of_many_parts_are_read() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8))
    png = encoded(noise)
    at, size = png.index(b"IDAT") + 4, struct.unpack(">I", png[33:37])[0]
    body = b"".join(chunk(b"IDAT", png[at + i : at + min(size, i + 256)]) for i in range(0, size, 256))
    assert decode_picture(png[:33] + body + png[at + size + 4 :]).tobytes() == decode_picture(png).tobytes()
    full_segments = stuffed_jpeg(b"\xff\xe2\xff\xff" + bytes(65_533), 300)
    assert decode_picture(full_segments).size == (9, 9)
    progressive = encoded(noise, "JPEG", progressive=True)
    assert decode_picture(progressive).size == (800, 600)


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


@cache
def photograph(size_px: tuple[int, int], seed: int = 0) -> Image.Image:
    """Smooth shapes with sharp edges and some grain, as a camera gives."""
    generator = np.random.default_rng(seed)
    blocks = Image.fromarray(generator.integers(0, 256, (12, 9, 3), dtype=np.uint8))
    smooth = np.asarray(blocks.resize(size_px, Image.Resampling.BICUBIC), dtype=np.int16)
    smooth[size_px[1] // 3 : size_px[1] // 2, size_px[0] // 4 :] //= 2
    return Image.fromarray((smooth + generator.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("resizer", [PILLOW, FAST])
@pytest.mark.parametrize("side_px", [96, 384])
@pytest.mark.parametrize("size_px", [(1200, 1003), (1001, 1600), (999, 700), (333, 333)])
def test_a_jpeg_decoded_for_the_model_is_within_one_level_of_full_decoding(
    resizer: str, side_px: int, size_px: tuple[int, int]
) -> None:
    contract = contract_of(side_px, resizer)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(photograph(size_px), "JPEG", quality=92, exif=exif)
        full = decode_picture(data)
        ours = decode_for_model(data, contract)
        assert (ours.width_px, ours.height_px) == full.size
        difference = np.abs(ours.pixels.astype(int) - model_pixels(full, contract))
        assert difference.mean() <= 1.0, f"orientation {orientation}"


def test_a_large_jpeg_is_not_decoded_at_full_size_and_a_png_is() -> None:
    contract = contract_of(48)
    picture = photograph((1600, 1200))
    assert decode_for_model(encoded(picture, "JPEG"), contract).shown.size == (200, 150)
    assert decode_for_model(encoded(picture, "JPEG"), contract_of(384)).shown.size == (800, 600)
    assert decode_for_model(encoded(picture), contract).shown.size == (1600, 1200)


def test_a_small_jpeg_is_reduced_where_three_times_the_model_s_side_is_left() -> None:
    data = encoded(photograph((768, 600)), "JPEG")
    for side_px, shown in ((25, (96, 75)), (26, (192, 150)), (100, (384, 300)), (101, (768, 600))):
        assert decode_for_model(data, contract_of(side_px)).shown.size == shown


def test_other_formats_and_small_pictures_are_exactly_what_full_decoding_gives() -> None:
    contract = contract_of(48)
    small = encoded(photograph((360, 287)), "JPEG")
    for data in (encoded(photograph((1600, 1200))), encoded(photograph((70, 60)), "JPEG"), small):
        assert np.array_equal(decode_for_model(data, contract).pixels, model_pixels(decode_picture(data), contract))


def test_grey_and_cmyk_jpegs_are_reduced_too() -> None:
    contract = contract_of(48)
    for mode in ("L", "CMYK"):
        data = encoded(photograph((1600, 1200)).convert(mode), "JPEG", quality=92)
        ours = decode_for_model(data, contract)
        assert ours.shown.size == (200, 150)
        assert np.abs(ours.pixels.astype(int) - model_pixels(decode_picture(data), contract)).mean() <= 1.0


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", PictureError, r"empty \(0 bytes\)"),
        (b"text.jpg", UnsupportedPictureError, "not a readable picture"),
        (encoded(photograph((800, 600)), "JPEG")[:4000], PictureError, "JPEG picture cannot be decoded .*cut off"),
        (bomb(8_000, 8_000), PictureTooLargeError, "the limit is 40,000,000"),
    ],
)
def test_decoding_for_the_model_refuses_what_decoding_refuses(
    data: bytes, error: type[PictureError], text: str
) -> None:
    with pytest.raises(error, match=text):
        decode_for_model(data, contract_of(48))


def test_a_contract_from_before_reduced_decoding_keeps_its_digest_and_its_pixels() -> None:
    old = CONTRACT.to_json()
    del old["scaled_jpeg"], old["resizer"], old["small_jpeg_oversampling"], old["sha256"]
    digest = digest_of(old)
    contract = PreprocessingContract.from_json({**old, "sha256": digest})
    assert (contract.scaled_jpeg, contract.resizer, contract.sha256) == (False, PILLOW, digest)
    data = encoded(photograph((1600, 1200)), "JPEG")
    assert decode_for_model(data, contract).shown.size == (1600, 1200)
    assert PreprocessingContract.from_json(CONTRACT.to_json()) == CONTRACT


def test_a_contract_from_before_small_jpegs_were_reduced_keeps_its_digest_and_its_pixels() -> None:
    old = CONTRACT.to_json()
    del old["small_jpeg_oversampling"], old["sha256"], old["resizer"]
    digest = digest_of(old)
    contract = PreprocessingContract.from_json({**old, "sha256": digest})
    assert (contract.small_jpeg_oversampling, contract.sha256) == (0, digest)
    for size_px, shown in (((1400, 999), (1400, 999)), ((1400, 1000), (175, 125))):
        assert decode_for_model(encoded(photograph(size_px), "JPEG"), contract).shown.size == shown


def digest_of(values: dict[str, Any]) -> str:
    """As contracts have always been hashed."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
