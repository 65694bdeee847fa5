"""Is one thumbnail the other one in a slightly different frame and light? Alignment, then the difference that is left.

A copy that lost up to 5 % at its edges shows the same picture in another frame: scaled and shifted by a few per cent.
The frame is found by Gauss-Newton steps on the grey levels (B. Lucas and T. Kanade, "An Iterative Image Registration
Technique", IJCAI 1981; S. Baker and I. Matthews, "Lucas-Kanade 20 Years On", IJCV 2004), together with a gain and an
offset of brightness, so that light does not pull on it. What is judged afterwards is colour: one gain for the three
channels together, because a gain for each would turn a red dress into a blue one.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

THUMB_PX = 32
CELLS = 16  # compared per side: two thumbnail pixels each way, so that half a pixel of misalignment does not count
GAINS: Final = (0.88, 1.14)  # 10 % darker or brighter, and a little for JPEG
SATURATED = 245  # levels above say nothing about the gain: a brighter copy clips its white background
STEPS = 4
MAX_STEP, MAX_FRAME = 0.06, 0.13  # of half the side; 5 % off both edges is a scale of 0.10
GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

# A frame is (scale x, shift x, scale y, shift y): what stands at u in the other picture stands at u + scale * u + shift
# in this one; u runs from -1 to 1 over the side. All zero = the same frame.


def frame(left: float, right: float, top: float, bottom: float) -> tuple[float, float, float, float]:
    """The frame of a window: shares of the sides that it leaves out."""
    return (-left - right, left - right, -top - bottom, top - bottom)


def aligned(first: Bytes, second: Bytes, frames: Floats) -> Floats:
    """Frames (P, 4) in which `first` (P, 32, 32, 3) looks most like `second`, sought from the given ones."""
    one, other = _smoothed(first @ GREY), _smoothed(second @ GREY)  # (P, 32, 32)
    u = _centres(THUMB_PX)
    columns = np.empty((len(one), 6, THUMB_PX, THUMB_PX), dtype=np.float32)
    columns[:, 5] = 255
    for _ in range(STEPS):
        rows, inside_y = _resampling(frames[:, 2:])
        cols, inside_x = _resampling(frames[:, :2])
        seen = rows @ one @ cols.transpose(0, 2, 1)
        columns[:, 1], columns[:, 3] = _slope(seen, 2), _slope(seen, 1)
        columns[:, 0], columns[:, 2] = columns[:, 1] * u, columns[:, 3] * u[:, None]
        columns[:, 4] = seen
        told = (inside_y[:, :, None] & inside_x[:, None, :]) & ((seen < SATURATED) | (other < SATURATED))
        flat = columns.reshape(len(one), 6, -1)
        weighted = flat * told.reshape(len(one), 1, -1)
        normal = weighted @ flat.transpose(0, 2, 1)  # (P, 6, 6)
        wanted = weighted @ (other - seen).reshape(len(one), -1, 1)
        step = np.linalg.solve(normal + _damping(normal), wanted)[..., 0]
        gain = np.clip(step[:, 4:5] + 1, 0.7, 1.4)
        frames = np.clip(frames + np.clip(step[:, :4] / gain, -MAX_STEP, MAX_STEP), -MAX_FRAME, MAX_FRAME)
    return frames


def differences(first: Bytes, second: Bytes, frames: Floats) -> tuple[Floats, Floats]:
    """Mean and largest difference of a cell, in levels of 0..255, of `first` in the given frames against `second`.

    Takes (P, 32, 32, 3) twice; returns (P,) twice. Only what lies inside both pictures is compared.
    """
    rows, inside_y = _resampling(frames[:, 2:])
    cols, inside_x = _resampling(frames[:, :2])
    rows, cols = _paired(rows, 1), _paired(cols, 1)  # (P, 16, 32)
    inside = _whole(inside_y)[:, :, None] & _whole(inside_x)[:, None, :]  # (P, 16, 16)
    half = (rows @ first.astype(np.float32).reshape(-1, THUMB_PX, THUMB_PX * 3)).reshape(-1, CELLS, THUMB_PX, 3)
    seen = cols[:, None] @ half  # (P, 16, 16, 3)
    other = cells(second)
    mask = inside[..., None]
    lit = mask & (seen < SATURATED) & (other < SATURATED)
    top = np.einsum("pijc,pijc,pijc->p", seen, other, lit, dtype=np.float32)
    bottom = np.einsum("pijc,pijc,pijc->p", seen, seen, lit, dtype=np.float32)
    gain = np.clip((top + 1) / (bottom + 1), *GAINS)
    gap = np.abs(np.minimum(seen * gain[:, None, None, None], 255) - other) * mask
    return gap.sum(axis=(1, 2, 3)) / (3 * np.maximum(inside.sum(axis=(1, 2)), 1)), gap.max(axis=(1, 2, 3))


def cells(thumbs: Bytes) -> Floats:
    """(P, 32, 32, 3) levels to (P, 16, 16, 3) means of 2 x 2."""
    pairs = thumbs[:, 0::2].astype(np.float32) + thumbs[:, 1::2]
    return (pairs[:, :, 0::2] + pairs[:, :, 1::2]) / 4


def _centres(count: int) -> Floats:
    return (np.arange(count, dtype=np.float32) + 0.5) / count * 2 - 1


def _resampling(scale_and_shift: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Matrices (P, 32, 32) of Catmull-Rom interpolation along one side, and which targets lie inside (P, 32).

    R. Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981. Linear interpolation blurs: it left
    half as much again as difference between a picture and its crop.
    """
    centres = _centres(THUMB_PX) * (1 + scale_and_shift[:, :1]) + scale_and_shift[:, 1:]  # (P, 32)
    inside = np.abs(centres) <= 1.001
    place = np.clip((centres + 1) / 2 * THUMB_PX - 0.5, 0, THUMB_PX - 1)
    away = np.abs(place[..., None] - np.arange(THUMB_PX, dtype=np.float32))  # (P, 32, 32)
    near = (1.5 * away - 2.5) * away * away + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0)).astype(np.float32)
    return weights / weights.sum(axis=2, keepdims=True), inside


def _paired(values: Floats, axis: int) -> Floats:
    first, second = np.split(values.reshape(*values.shape[:axis], CELLS, 2, *values.shape[axis + 1 :]), 2, axis + 1)
    return ((first + second) / 2).squeeze(axis + 1)


def _whole(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return inside[:, 0::2] & inside[:, 1::2]


def _smoothed(levels: Floats) -> Floats:
    """A 1-2-1 blur both ways: slopes of a blurred picture hold over a wider step."""
    for axis in (1, 2):
        padded = np.take(levels, np.clip(np.arange(-1, THUMB_PX + 1), 0, THUMB_PX - 1), axis=axis)
        before, here, after = (np.take(padded, range(start, start + THUMB_PX), axis=axis) for start in range(3))
        levels = (before + 2 * here + after) / 4
    return levels


def _slope(levels: Floats, axis: int) -> Floats:
    """Change of level per unit of u."""
    return np.gradient(levels, axis=axis) * (THUMB_PX / 2)


def _damping(normal: Floats) -> Floats:
    """A little on the diagonal: a picture without edges says nothing about its frame, and must not divide by zero."""
    share = np.trace(normal[:, :4, :4], axis1=1, axis2=2) * 3e-4 + 1
    weights = np.ones((len(normal), 6), dtype=np.float32)
    weights[:, :4] = share[:, None]
    return weights[:, :, None] * np.eye(6, dtype=np.float32)
