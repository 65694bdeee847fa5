"""The preprocessing contract: how a picture becomes the model's input, written down, hashed, and kept with the model.

Training shards, evaluation and serving call the same `model_pixels` with the same contract, so they cannot disagree.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_serving.errors import BundleError

# BLIP's own values (those of CLIP): the mean and standard deviation of RGB in 0..1.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


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

    @property
    def sha256(self) -> str:
        """Hex digest of the contract: equal digests, equal inputs."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary with the digest beside the values."""
        return {**asdict(self), "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "PreprocessingContract":
        """Read what `to_json` wrote; a digest that does not match the values is an error."""
        names = {field.name for field in fields(cls)}
        values: dict[str, Any] = {name: value[name] for name in names if name in value}
        values |= {"mean": tuple(value["mean"]), "std": tuple(value["std"])}
        contract = cls(**values)
        if value.get("sha256", contract.sha256) != contract.sha256:
            raise BundleError(
                f"The preprocessing contract was altered: its values hash to {contract.sha256[:12]}, "
                f"the file says {value['sha256'][:12]}. Use the bundle as it was written."
            )
        return contract


def model_pixels(picture: Image.Image, contract: PreprocessingContract) -> NDArray[np.uint8]:
    """An RGB picture as the model's input before normalisation: uint8 (3, H, W) with H = W = image_size_px."""
    size = (contract.image_size_px, contract.image_size_px)
    if picture.mode != "RGB":
        raise ValueError(f"model_pixels takes RGB, got mode {picture.mode}; use vlm_serving.images.decode_picture")
    resized = picture if picture.size == size else picture.resize(size, RESAMPLERS[contract.resample])
    return np.ascontiguousarray(np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1))
