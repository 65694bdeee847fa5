"""JPEGs of about 200 KB, each different from all others: a server that keeps answers by content gains nothing."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIZE_PX = (1024, 768)
QUALITY = 80
GRAIN = 11.0  # standard deviation of the noise, grey levels: with QUALITY it makes about 200 KB
BASES = 8
STEPS = 16  # values that one quantiser step takes
QUANTISERS = (1, 2, 3, 4)  # low frequencies of the luminance table: they survive the reduction to the model's size
DQT = b"\xff\xdb"


def jpegs(seed: int = 0) -> Iterator[bytes]:
    """Different pictures, BASES * STEPS ** 4 = 524,288 of them, then StopIteration. The first BASES take 0.2 s.

    A few scenes are encoded; the others are those with other steps in the quantisation table, so that their pixels and
    not just their bytes differ, and a load generator does not spend its time on encoding.
    """
    scenes = [bytearray(_encode(seed * BASES + number)) for number in range(BASES)]
    for variant in range(STEPS ** len(QUANTISERS)):
        for scene in scenes:
            yield _varied(scene, variant)


def _varied(scene: bytearray, variant: int) -> bytes:
    data = bytearray(scene)
    table = data.index(DQT) + 5  # marker, length, table number
    for position in QUANTISERS:
        variant, step = divmod(variant, STEPS)
        data[table + position] += step
    return bytes(data)


def _encode(seed: int) -> bytes:
    generator = np.random.default_rng(seed)
    blocks = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    scene = np.asarray(blocks.resize(SIZE_PX, Image.Resampling.BICUBIC), dtype=np.float32)
    grain = generator.normal(0, GRAIN, (*scene.shape[:2], 1)).astype(np.float32)
    buffer = io.BytesIO()
    Image.fromarray((scene + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
