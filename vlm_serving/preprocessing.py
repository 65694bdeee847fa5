"""The preprocessing contract: how a picture becomes the model's input, written down, hashed, and kept with the model.

Training shards, drift reference and serving call the same `decode_for_model` with the same contract: they agree.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from vlm_serving.errors import BundleError
from vlm_serving.images import DEFAULT_LIMITS, PictureLimits, decoding, open_picture, render_picture
from vlm_serving.resizing import PILLOW, Box, check_resizer, resize_square

# BLIP's own values (those of CLIP): the mean and standard deviation of RGB in 0..1.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# A JPEG decoder can leave out the frequencies that a smaller picture does not show: a half, a quarter or an eighth of
# the size for a fraction of the time. By denominator: how many times the model's side must be left. Small pictures are
# sharp to the pixel and would lose most, so that more of them must be left: the contract's `small_jpeg_oversampling`.
# Differences from full decoding: docs/benchmarks.md, `make bench-data`.
JPEG_OVERSAMPLING = {8: 2.0, 4: 1.5, 2: 1.5}
LARGE_FROM_PX = 1000  # the shorter side
# What contracts mean that were written before these settings existed.
BEFORE: Mapping[str, Any] = {"scaled_jpeg": False, "resizer": PILLOW, "small_jpeg_oversampling": 0.0}
TURNED_ON_ITS_SIDE = 5  # EXIF orientations from here on swap width and height
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class PreprocessingContract:
    """All that decides which numbers the model sees for a picture and a caption."""

    image_size_px: int  # pictures are squashed to this square, as BLIP does: no crop, nothing lost at the edges
    bos_token_id: int  # generation starts from it, so training starts from it too
    eos_token_id: int  # BLIP stops on [SEP]
    pad_token_id: int
    max_caption_tokens: int = 40
    resample: str = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    tokenizer_sha256: str = ""
    scaled_jpeg: bool = True  # decode large JPEGs at a reduced size
    resizer: str = PILLOW  # whose code resamples: vlm_serving/resizing.py
    small_jpeg_oversampling: float = 3.0  # how many times its side JPEGs below LARGE_FROM_PX keep; 0: decoded in full

    @property
    def sha256(self) -> str:
        """Hex digest of the contract: equal digests, equal inputs."""
        values = asdict(self)
        for name, value in BEFORE.items():  # as digests were taken before
            if values[name] == value:
                del values[name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with the digest beside the values."""
        return {**asdict(self), "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PreprocessingContract":
        """Read what `to_json` wrote. BundleError if the digest does not match, or this machine lacks the resizer."""
        names = {field.name for field in fields(cls)}
        values: dict[str, Any] = {**BEFORE, **{name: value[name] for name in names if name in value}}
        values |= {"mean": tuple(value["mean"]), "std": tuple(value["std"])}
        contract = cls(**values)
        if value.get("sha256", contract.sha256) != contract.sha256:
            raise BundleError(
                f"The preprocessing contract was altered: its values hash to {contract.sha256[:12]}, "
                f"the file says {value['sha256'][:12]}. Use the bundle as it was written."
            )
        check_resizer(contract.resizer)
        return contract


def model_pixels(picture: Image.Image, contract: PreprocessingContract) -> NDArray[np.uint8]:
    """An RGB picture as the model's input before normalisation: uint8 (3, H, W) with H = W = image_size_px.

    For a picture that is decoded already; from its file, `decode_for_model` is the way.
    """
    if picture.mode != "RGB":
        raise ValueError(f"model_pixels takes RGB, got mode {picture.mode}; use vlm_serving.images.decode_picture")
    return _channels_first(_square(picture, contract))


@dataclass(frozen=True)
class ModelPicture:
    """A picture as the model sees it, and what else is worth knowing of it."""

    square: NDArray[np.uint8]  # RGB, (H, W, 3), image_size_px both ways
    shown: Image.Image  # RGB, as decoded: upright, or reduced and not turned. For statistics
    width_px: int  # of the file, upright
    height_px: int

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (3, H, W), before normalisation."""
        return _channels_first(self.square)


def decode_for_model(
    data: bytes, contract: PreprocessingContract, limits: PictureLimits = DEFAULT_LIMITS
) -> ModelPicture:
    """Encoded picture -> the model's input: the one way that shards, references, evaluation and serving all take.

    A JPEG much larger than the model's input is decoded at a reduced size. Raises what `decode_picture` does.
    """
    picture = open_picture(data, limits)
    width_px, height_px = picture.size
    with decoding(picture):
        box = _reduce_jpeg(picture, contract) if contract.scaled_jpeg else None
    if box is None:
        upright = render_picture(picture)
        return ModelPicture(_square(upright, contract), upright, *upright.size)
    with decoding(picture):
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
        shown = picture.convert("RGB")
    # squashed first and turned then: the box leaves out what the last blocks hold beyond the picture's edge
    square = _upright(_square(shown, contract, box), orientation)
    size_px = (height_px, width_px) if orientation >= TURNED_ON_ITS_SIDE else (width_px, height_px)
    return ModelPicture(square, shown, *size_px)


def _reduce_jpeg(picture: Image.Image, contract: PreprocessingContract) -> Box | None:
    """Ask the JPEG decoder for the smallest size that is large enough; the picture's box in it, None if unreduced."""
    if picture.format != "JPEG":
        return None
    width_px, height_px = picture.size
    small = min(picture.size) < LARGE_FROM_PX
    for denominator, of_large in JPEG_OVERSAMPLING.items():
        oversampling = (contract.small_jpeg_oversampling or math.inf) if small else of_large
        if min(picture.size) >= denominator * oversampling * contract.image_size_px:
            done = picture.draft(picture.mode, (width_px // denominator, height_px // denominator))
            return None if done is None else done[1]
    return None


def _square(picture: Image.Image, contract: PreprocessingContract, box: Box | None = None) -> NDArray[np.uint8]:
    return resize_square(picture, contract.image_size_px, contract.resample, contract.resizer, box)


def _upright(square: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of (H, W, 3) with H = W. Unknown ones count as upright, as Pillow has it."""
    turn = TURNS.get(orientation)
    return square if turn is None else np.asarray(Image.fromarray(square).transpose(turn))


def _channels_first(square: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(square.transpose(2, 0, 1))
