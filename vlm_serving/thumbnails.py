"""A small JPEG of a picture, for people who look at the request log."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUALITY = 75


def thumbnail(square: NDArray[np.uint8], size_px: tuple[int, int], longest_px: int) -> bytes:
    """JPEG bytes of a picture of `size_px` (width, height), its longer side at most `longest_px`.

    `square` is the picture as the model sees it, upright and squashed to (H, H, 3): it is small already.
    """
    scale = min(1.0, longest_px / max(size_px))
    target = (max(1, round(size_px[0] * scale)), max(1, round(size_px[1] * scale)))
    buffer = io.BytesIO()
    Image.fromarray(square).resize(target, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
