"""Two cheap statistics of a picture, computed the same way when it is a reference and when it is traffic."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

FULL_SCALE = 255.0  # 8 bits a channel
MEASURED_SIDE_PX = 256  # larger pictures are averaged down to about this first: 20 ms, not 120, at 36 megapixels


@dataclass(frozen=True)
class PictureStatistics:
    """Brightness and contrast as fractions of full scale, 0..1, and the size of the picture as it came, in pixels."""

    brightness: float
    contrast: float
    width_px: int
    height_px: int


def picture_statistics(image: Image.Image, size_px: tuple[int, int] | None = None) -> PictureStatistics:
    """Mean and standard deviation of the luma (ITU-R BT.601) of an RGB picture, both divided by full scale.

    A black picture has brightness 0, a white one 1; a picture of one colour has contrast 0 and black beside white in
    equal parts has 0.5, the most there is. `Image.reduce` averages whole blocks, hence the same pixels give the same
    numbers on every machine. `size_px` is (width, height) of the file, where `image` was decoded at a reduced size.
    """
    width_px, height_px = size_px or image.size
    factor = max(1, max(image.size) // MEASURED_SIDE_PX)
    luma = np.asarray(image.reduce(factor).convert("L"), dtype=np.float64) / FULL_SCALE  # (h, w)
    return PictureStatistics(
        brightness=float(luma.mean()),
        contrast=float(luma.std()),
        width_px=width_px,
        height_px=height_px,
    )
