"""Cheap statistics of a picture, computed the same way when it is a reference and when it is traffic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FULL_SCALE = 255.0  # 8 bits a channel
MEASURED_SIDE_PX = 256  # larger pictures are averaged down to about this first: 20 ms, not 120, at 36 megapixels
SHARPNESS_SIDE_PX = 256  # the longer side at which sharpness is measured, so that resolution does not count


@dataclass(frozen=True)
class PictureStatistics:
    """Brightness and contrast as fractions of full scale, 0..1, and the size of the picture as it came, in pixels."""

    brightness: float
    contrast: float
    width_px: int
    height_px: int
    colourfulness: float  # 0 grey, about 0.1 to 0.4 coloured
    sharpness: float  # squared grey levels
    entropy_bits: float  # 0..8


def picture_statistics(image: Image.Image, size_px: tuple[int, int] | None = None) -> PictureStatistics:
    """All statistics of an RGB picture.

    `Image.reduce` averages whole blocks, hence the same pixels give the same numbers on every machine. `size_px` is
    (width, height) of the file, where `image` was decoded at a reduced size.
    """
    width_px, height_px = size_px or image.size
    small = _reduced(image)
    grey = small.convert("L")
    brightness, contrast = _mean_and_deviation(grey)
    return PictureStatistics(
        brightness=brightness,
        contrast=contrast,
        width_px=width_px,
        height_px=height_px,
        colourfulness=colourfulness(small),
        sharpness=sharpness(grey),
        entropy_bits=entropy_bits(grey),
    )


def light(image: Image.Image) -> tuple[float, float]:
    """Brightness and contrast: mean and standard deviation of the luma (ITU-R BT.601), both divided by full scale.

    A black picture has brightness 0, a white one 1; a picture of one colour has contrast 0 and black beside white in
    equal parts has 0.5, the most there is.
    """
    return _mean_and_deviation(_reduced(image).convert("L"))


def colourfulness(image: Image.Image) -> float:
    """How far an RGB picture is from grey, divided by full scale: 0 for grey, slightly above 1 at most.

    D. Hasler, S. Süsstrunk, "Measuring colourfulness in natural images", SPIE 2003, eq. 7 (metric M3).
    """
    red, green, blue = (np.asarray(channel, dtype=np.float32) for channel in image.split())  # (h, w) each
    opponents = (red - green, (red + green) / 2 - blue)
    means = [float(values.mean()) for values in opponents]
    deviations = [float(values.std()) for values in opponents]
    return (math.hypot(*deviations) + 0.3 * math.hypot(*means)) / FULL_SCALE


def entropy_bits(grey: Image.Image) -> float:
    """Shannon entropy of the 256 levels of a grey picture, 0..8 bits."""
    counts: Sequence[int] = grey.histogram()
    shares = np.asarray(counts, dtype=np.float64) / (grey.width * grey.height)
    present = shares[shares > 0]
    return abs(float(-(present * np.log2(present)).sum()))


def sharpness(grey: Image.Image) -> float:
    """Variance of the Laplacian of a grey picture, brought to at most 256 px, in squared levels of 0..255.

    J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy: a comparative study", ICPR 2000.
    """
    small = grey.copy()
    small.thumbnail((SHARPNESS_SIDE_PX, SHARPNESS_SIDE_PX), Image.Resampling.BOX)
    if min(small.size) < 3:
        return 0.0
    levels: NDArray[np.float32] = np.asarray(small, dtype=np.float32)  # (h, w)
    around = levels[1:-1, :-2] + levels[1:-1, 2:] + levels[:-2, 1:-1] + levels[2:, 1:-1]
    return float((around - 4 * levels[1:-1, 1:-1]).var())


def _reduced(image: Image.Image) -> Image.Image:
    return image.reduce(max(1, max(image.size) // MEASURED_SIDE_PX))


def _mean_and_deviation(grey: Image.Image) -> tuple[float, float]:
    luma = np.asarray(grey, dtype=np.float64) / FULL_SCALE  # (h, w)
    return float(luma.mean()), float(luma.std())
