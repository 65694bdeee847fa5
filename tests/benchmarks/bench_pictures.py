"""What the worst picture of each format costs: the largest that the limits allow, in seconds and MiB of one thread.

    python -m tests.benchmarks.bench_pictures    # a minute; the table is in docs/serving.md

Each is 40 megapixels and at most 20 MiB, in the form that its decoder finds hardest: a JPEG too flat to be decoded at a
reduced size, in four colours, progressive; pictures with transparency; an animation; run lengths.
"""

import io
import multiprocessing
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vlm_serving.bounded_reading import MAX_RUN_LENGTH_PIXELS
from vlm_serving.images import DEFAULT_LIMITS, MEBIBYTE
from vlm_serving.preprocessing import PreprocessingContract, decode_for_model
from vlm_serving.resizing import default_resizer

CONTRACT = PreprocessingContract(384, 5, 3, 0, resizer=default_resizer())
SQUARE, FLAT = (6324, 6324), (40_040, 999)


def grain(size: tuple[int, int], channels: int, levels: int) -> np.ndarray:
    """Noise of few grey levels: as much detail as 20 MiB hold."""
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return np.random.default_rng(0).integers(0, levels, shape, dtype=np.uint8)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg() -> bytes:
    return encoded(Image.fromarray(grain(FLAT, 4, 20), "CMYK"), "JPEG", progressive=True, quality=70)


def png() -> bytes:
    alpha = grain(SQUARE, 4, 1)
    alpha[..., 3] = grain(SQUARE, 1, 3)
    return encoded(Image.fromarray(alpha, "RGBA"), "PNG", compress_level=6)


def deep_png() -> bytes:
    return encoded(Image.fromarray(grain(SQUARE, 1, 4).astype(np.uint16)), "PNG", compress_level=1)


def gif() -> bytes:
    return encoded(Image.fromarray(grain(SQUARE, 1, 4), "P"), "GIF", transparency=1)


def webp() -> bytes:
    frame = Image.fromarray(np.repeat(grain(SQUARE, 1, 3)[..., None], 4, axis=2), "RGBA")
    return encoded(frame, "WEBP", save_all=True, append_images=[Image.new("RGBA", SQUARE)], lossless=True, method=0)


def bmp() -> bytes:
    """Run lengths, one pixel a row and the rest left to the end of the line."""
    side = int(MAX_RUN_LENGTH_PIXELS**0.5)
    body = bytes([1, 0, 0, 0]) * side
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 2, 0) + bytes(8)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(body), 0, 0, 62) + header + body


WORST: dict[str, Callable[[], bytes]] = {
    "JPEG, progressive CMYK": jpeg,
    "PNG with transparency": png,
    "PNG, 16-bit grey": deep_png,
    "GIF with transparency": gif,
    "WebP, animated with transparency": webp,
    "BMP of run lengths": bmp,
}


def cost(data: bytes) -> tuple[float, float]:
    """CPU seconds, and MiB above what the process held before; to be called in a process of its own."""
    before = peak_mib()
    started_s = time.thread_time()
    decode_for_model(data, CONTRACT)
    spent_s = time.thread_time() - started_s
    return spent_s, peak_mib() - before


def peak_mib() -> float:
    """The most that this process has held; getrusage would count its parent's from before it was started."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Print the table."""
    context = multiprocessing.get_context("spawn")
    print("| worst picture | file, MiB | CPU, s | memory, MiB |\n|---|---|---|---|")
    for name, make in WORST.items():
        data = make()
        assert len(data) <= DEFAULT_LIMITS.max_bytes, (name, len(data))
        with context.Pool(1) as pool:
            spent_s, peak_mib = pool.apply(cost, (data,))
        print(f"| {name} | {len(data) / MEBIBYTE:.2f} | {spent_s:.1f} | {peak_mib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
