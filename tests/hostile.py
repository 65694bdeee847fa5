"""Hostile pictures, the same for the same seed: real files, mutated, spliced, and lying about themselves."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tests.serving import GOOD, bomb_png, encode

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
STRANGERS = (
    b"PK\x03\x04" + bytes(26), b"%PDF-1.7\n", b"<script>alert(1)</script>", b"GIF89a", b"\xff\xd8\xff\xe0",
    b"RIFF\xff\xff", b"BM\xff\xff\xff\xff", PNG_MAGIC, b"\x7fELF",
)  # fmt: skip
Random = np.random.Generator
Mutation = Callable[[bytes, bytes, Random], bytes]


def hostile_pictures(count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` files: one or two mutations of a real one each, every twentieth a bomb."""
    generator, originals = np.random.default_rng(seed), real_files()
    for number in range(count):
        if number % 20 == 19:
            yield BOMBS[number // 20 % len(BOMBS)](generator)
            continue
        data = originals[number % len(originals)]
        for _ in range(int(generator.integers(1, 3))):
            other = originals[int(generator.integers(len(originals)))]
            data = MUTATIONS[int(generator.integers(len(MUTATIONS)))](data, other, generator)
        yield data


def real_files() -> list[bytes]:
    """Every kind of picture that is read, in every format and in the forms that decoders tell apart."""
    grain = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 4), dtype=np.uint8), "RGBA")
    colours, palette = grain.convert("RGB"), grain.convert("RGB").quantize(64)
    frames = [palette, palette.transpose(Image.Transpose.ROTATE_180)]
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *GOOD.values(),
        encode(colours, "JPEG", exif=exif, quality=70),
        encode(colours, "JPEG", progressive=True, optimize=True, subsampling=0),
        encode(colours, "JPEG", restart_marker_blocks=4),
        encode(grain, "PNG"),
        encode(palette, "PNG", bits=4),
        encode(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0, comment=b"hello"),
        encode(grain, "WEBP", lossless=True),
        encode(colours, "WEBP", save_all=True, append_images=[colours], exif=exif),
        encode(colours, "BMP"),
        encode(palette, "BMP"),
        encode(grain.convert("1"), "BMP"),
    ]


def _flip(data: bytes, _: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for at in random.integers(0, max(1, len(data)), int(random.integers(1, 33))):
        if at < len(changed):
            changed[at] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _truncate(data: bytes, _: bytes, random: Random) -> bytes:
    return data[: int(random.integers(0, len(data) + 1))]


def _lie_in_header(data: bytes, _: bytes, random: Random) -> bytes:
    """A number near the beginning becomes an extreme one."""
    width = int(random.choice([1, 2, 4]))
    at = int(random.integers(0, min(len(data), 160) + 1))
    value = int(random.choice(EXTREMES)) % 256**width
    return data[:at] + value.to_bytes(width, "big" if random.integers(2) else "little") + data[at + width :]


def _overwrite(data: bytes, _: bytes, random: Random) -> bytes:
    at, size = int(random.integers(0, len(data) + 1)), int(random.integers(1, 200))
    return data[:at] + random.bytes(size) + data[at + size :]


def _insert(data: bytes, _: bytes, random: Random) -> bytes:
    at = int(random.integers(0, len(data) + 1))
    return data[:at] + random.bytes(int(random.integers(1, 100))) + data[at:]


def _repeat(data: bytes, _: bytes, random: Random) -> bytes:
    """A piece comes again and again."""
    start, end = sorted(int(at) for at in random.integers(0, len(data) + 1, 2))
    return data[:end] + data[start:end][:2000] * int(random.integers(1, 50)) + data[end:]


def _splice(data: bytes, other: bytes, random: Random) -> bytes:
    return data[: int(random.integers(0, len(data) + 1))] + other[int(random.integers(0, len(other) + 1)) :]


def _polyglot(data: bytes, other: bytes, random: Random) -> bytes:
    stranger = STRANGERS[int(random.integers(len(STRANGERS)))]
    return [data + other, stranger + data, data + stranger, other[:64] + data][int(random.integers(4))]


def _late_lie(data: bytes, _: bytes, random: Random) -> bytes:
    """PNG only checks what its checksum covers: the lie gets a right one."""
    if data[:8] != PNG_MAGIC or len(data) < 33:
        return _lie_in_header(data, b"", random)
    header = bytearray(data[16:29])
    struct.pack_into(">I", header, 4 * int(random.integers(2)), int(random.choice(EXTREMES)) % 2**31)
    header[8 + int(random.integers(5))] = int(random.integers(20))
    return data[:16] + bytes(header) + struct.pack(">I", zlib.crc32(b"IHDR" + bytes(header))) + data[33:]


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _truncate, _lie_in_header, _overwrite, _insert, _repeat, _splice, _polyglot, _late_lie,
)  # fmt: skip


def _sides(random: Random) -> tuple[int, int]:
    return int(random.integers(1, 65_536)), int(random.integers(1, 65_536))


def _png_bomb(random: Random) -> bytes:
    return bomb_png(*_sides(random))


def _bmp_bomb(random: Random) -> bytes:
    depth, compression = int(random.choice([1, 4, 8, 16, 24, 32])), int(random.integers(4))
    header = struct.pack("<IiiHHIIiiII", 40, *_sides(random), 1, depth, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + random.bytes(200)


def _gif_bomb(random: Random) -> bytes:
    """Full screens of one colour: few bytes, many pixels."""
    size = struct.pack("<HH", *_sides(random))
    frame = b"," + bytes(4) + size + b"\0" + b"\x02\x02\x4c\x01\0"
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + frame * 3 + b";"


def _jpeg_bomb(random: Random) -> bytes:
    """A real JPEG that claims another size."""
    data = GOOD["progressive jpeg" if random.integers(2) else "jpeg"]
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
    return data[:at] + struct.pack(">HH", *_sides(random)) + data[at + 4 :]


def _webp_bomb(random: Random) -> bytes:
    """An animation on a canvas much larger than its frames."""
    frame = Image.new("RGBA", (9, 9), (1, 2, 3, 4))
    buffer = io.BytesIO()
    frame.save(buffer, "WEBP", save_all=True, append_images=[Image.new("RGBA", (9, 9))])
    data = buffer.getvalue()
    at = data.index(b"VP8X") + 12
    sides = (struct.pack("<I", int(side) % 16_383)[:3] for side in _sides(random))
    return data[:at] + b"".join(sides) + data[at + 6 :]


def _zip_bomb(random: Random) -> bytes:
    """A PNG whose text unpacks to a thousand times its size."""
    text = zlib.compress(bytes(int(random.integers(1, 64)) * 2**18))
    body = b"Comment\0\0" + text
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    data = GOOD["one pixel"]
    return data[:33] + chunk * 3 + data[33:]


BOMBS = (_png_bomb, _bmp_bomb, _gif_bomb, _jpeg_bomb, _webp_bomb, _zip_bomb)
