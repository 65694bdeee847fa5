"""Which pictures and captions are not worth training on, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class QualityLimits:
    """What a usable picture and caption must meet."""

    min_side_px: int = 32
    max_aspect_ratio: float = 4.0  # longer side / shorter side
    min_entropy_bits: float = 0.1  # of the grey histogram; a constant picture has 0, a photograph about 7
    min_caption_characters: int = 2
    max_caption_characters: int = 500


DEFAULT_LIMITS = QualityLimits()


@dataclass(frozen=True)
class Fault:
    """Why something was dropped: a countable reason, and the value seen against the limit."""

    reason: str
    detail: str


def picture_fault(picture: Image.Image, limits: QualityLimits = DEFAULT_LIMITS) -> Fault | None:
    """The first limit that the decoded picture misses, or None."""
    shorter, longer = sorted(picture.size)
    if shorter < limits.min_side_px:
        return Fault("too_small", f"shorter side {shorter} px < {limits.min_side_px} px")
    if longer > limits.max_aspect_ratio * shorter:
        return Fault("too_elongated", f"aspect ratio {longer / shorter:.2f} > {limits.max_aspect_ratio:g}")
    entropy = entropy_bits(picture)
    if entropy < limits.min_entropy_bits:
        return Fault("no_content", f"entropy {entropy:.3f} bits < {limits.min_entropy_bits:g} bits")
    return None


def caption_fault(caption: str, limits: QualityLimits = DEFAULT_LIMITS) -> Fault | None:
    """The first limit that the caption misses, or None."""
    length = len(caption.strip())
    if length < limits.min_caption_characters:
        return Fault("caption_too_short", f"{length} characters < {limits.min_caption_characters}")
    if length > limits.max_caption_characters:
        return Fault("caption_too_long", f"{length} characters > {limits.max_caption_characters}")
    return None


def entropy_bits(picture: Image.Image) -> float:
    """Shannon entropy of the 256 grey levels, 0..8 bits."""
    counts: Sequence[int] = picture.convert("L").histogram()
    shares = np.asarray(counts, dtype=np.float64) / (picture.width * picture.height)
    present = shares[shares > 0]
    return abs(float(-(present * np.log2(present)).sum()))
