"""Pictures slightly changed at every look, with the caption still true: moved, mirrored, brighter or flatter.

What happens to a picture hangs on the seed, the epoch and its place in the set only: a run resumed in mid-epoch, other
batches or more workers see the very same pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # (3, H, W)


@dataclass(frozen=True)
class Augmentation:
    """What may change. Everything 0: nothing does."""

    shift_px: int = 0  # moved by up to this many pixels each way, edges repeated
    flip: bool = False  # mirrored half of the time
    jitter_share: float = 0.0  # brightness and contrast times 1 - share ... 1 + share

    def __call__(self, pixels: Pixels, key: Sequence[int]) -> Pixels:
        """A changed copy of uint8 (3, H, W), or the same array where nothing may change. Equal keys change it alike."""
        chance = np.random.default_rng(key)
        if self.shift_px:
            pixels = _shifted(pixels, self.shift_px, chance)
        if self.flip and chance.random() < 0.5:
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        if self.jitter_share:
            pixels = _jittered(pixels, self.jitter_share, chance)
        return pixels


def _shifted(pixels: Pixels, reach: int, chance: np.random.Generator) -> Pixels:
    down, right = (int(x) for x in chance.integers(-reach, reach, 2, endpoint=True))
    padded = np.pad(pixels, ((0, 0), (reach, reach), (reach, reach)), mode="edge")
    height, width = pixels.shape[1:]
    return padded[:, reach + down : reach + down + height, reach + right : reach + right + width]


def _jittered(pixels: Pixels, share: float, chance: np.random.Generator) -> Pixels:
    brightness, contrast = (1 + share * (2 * float(x) - 1) for x in chance.random(2))
    mean = float(pixels.mean())
    changed = (pixels.astype(np.float32) - mean) * contrast + mean * brightness
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)
