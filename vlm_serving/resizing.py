"""A picture to the model's square: which resampling, by which code. The contract names both.

`fast_image_resize` is the Rust crate of that name (package cykooz.resizer): three to four times as fast as Pillow, the
same pixels with and without SSE4 and AVX2, and within 0.1 of 255 levels of Pillow's on the mean of a photograph
(docs/benchmarks.md). Pillow serves where there is no wheel of it (64-bit ARM Linux), and bundles made with Pillow.
"""

import importlib.util
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_serving.errors import BundleError

RESAMPLERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
FILTERS = {"bicubic": "catmull_rom", "bilinear": "bilinear"}  # Pillow's bicubic is Catmull and Rom's, a = -0.5
PILLOW, FAST = "pillow", "fast_image_resize"
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

_of_thread = threading.local()  # a Resizer keeps buffers and is not to be shared between threads


def default_resizer() -> str:
    """What new models are made with on this machine."""
    return FAST if importlib.util.find_spec("cykooz_resizer") else PILLOW


def check_resizer(name: str) -> None:
    """Raise BundleError unless this machine can resize as the contract says."""
    if name not in (PILLOW, FAST):
        raise BundleError(f"The contract's resizer is {name!r}; this version knows {PILLOW!r} and {FAST!r}.")
    if name == FAST and default_resizer() != FAST:
        raise BundleError(
            f"The model's pictures are resized by {FAST}, which is not installed here, and other pixels are other "
            "captions. pip install cykooz.resizer (where there is no wheel it takes a Rust compiler), or train again "
            "on this kind of machine."
        )


def resize_square(
    picture: Image.Image, side_px: int, resample: str, resizer: str, box: Box | None = None
) -> NDArray[np.uint8]:
    """An RGB picture, or a box of it, squashed to uint8 (side, side, 3); one of that size passes untouched."""
    whole = box is None or box == (0, 0, *picture.size)
    if whole and picture.size == (side_px, side_px):
        return np.asarray(picture, dtype=np.uint8)
    if resizer == PILLOW:
        return np.asarray(picture.resize((side_px, side_px), RESAMPLERS[resample], box=box), dtype=np.uint8)
    return _convolved(picture, side_px, FILTERS[resample], None if whole else box)


def _convolved(picture: Image.Image, side_px: int, kernel: str, box: Box | None) -> NDArray[np.uint8]:
    import cykooz_resizer as fast

    if not hasattr(_of_thread, "resizer"):
        _of_thread.resizer = fast.Resizer()
    options: Any = fast.ResizeOptions(fast.ResizeAlg.convolution(fast.FilterType[kernel]), use_alpha=False)
    if box is not None:
        left, top, right, bottom = box
        options.crop_box = fast.CropBox(left, top, right - left, bottom - top)
    source = fast.ImageData(picture.width, picture.height, fast.PixelType.U8x3, picture.tobytes())
    square = fast.ImageData(side_px, side_px, fast.PixelType.U8x3)
    _of_thread.resizer.resize(source, square, options)
    return np.frombuffer(square.get_buffer(), np.uint8).reshape(side_px, side_px, 3)
