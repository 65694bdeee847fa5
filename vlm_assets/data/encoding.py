"""How a picture at the model's size is kept in a shard: PNG, JPEG, WebP or raw, all of which Pillow opens.

Raw is binary PPM: eight-bit RGB behind a short header, which costs nothing to read and is a picture to every tool.
PNG is written here and not by Pillow: one filter for all rows instead of a search, and igzip for the compression, make
it 8 times as fast for 3 % more bytes (figures: docs/benchmarks.md).
"""

import io
import re
import struct
import zlib
from typing import Literal

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

Encoding = Literal["png", "jpeg", "webp", "raw"]
SUFFIX: dict[Encoding, str] = {"png": "png", "jpeg": "jpg", "webp": "webp", "raw": "ppm"}
LOSSLESS_QUALITY = 100
PPM_HEADER = re.compile(rb"P6\n(\d+) (\d+)\n255\n")
FILTER_UP = 2  # PNG specification, 9.2: the difference from the pixel above
RGB_8_BITS = (8, 2, 0, 0, 0)  # bit depth, colour type, compression, filter, interlace


def encode_pixels(pixels: NDArray[np.uint8], encoding: Encoding, quality: int = 95) -> bytes:
    """A picture, uint8 (H, W, 3), as the bytes of a file. `quality` is for jpeg and webp; webp at 100 is lossless."""
    if encoding == "png":
        return _png(pixels)
    if encoding == "raw":
        height, width, _ = pixels.shape
        return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    if encoding == "jpeg":
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)  # full colour resolution: the picture is small
    else:
        picture.save(buffer, "WEBP", quality=quality, lossless=quality == LOSSLESS_QUALITY, method=0)
    return buffer.getvalue()


def decode_pixels(data: bytes | memoryview) -> NDArray[np.uint8]:
    """The pixels of a picture of a shard, uint8 (H, W, 3). Of a raw picture it is a view: nothing is copied."""
    raw = PPM_HEADER.match(data)
    if raw:
        width, height = int(raw[1]), int(raw[2])
        return np.frombuffer(data, np.uint8, offset=raw.end()).reshape(height, width, 3)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    height, width, _ = pixels.shape
    flat = pixels.reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = FILTER_UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, *RGB_8_BITS)
    body = isal_zlib.compress(rows.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
