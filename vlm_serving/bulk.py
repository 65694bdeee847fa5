"""Encoded pictures through a Captioner: one that cannot be captioned has its reason, the others have their captions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_serving.captioner import Caption, Captioner
from vlm_serving.errors import PictureError, PictureFailedError
from vlm_serving.generation import GenerationOptions
from vlm_serving.images import DEFAULT_LIMITS, PictureLimits
from vlm_serving.preprocessing import decode_for_model

Outcome = Caption | PictureError | PictureFailedError
Mapped = Callable[[Callable[[bytes], Any], Sequence[bytes]], Iterable[Any]]


def caption_encoded(
    captioner: Captioner,
    pictures: Sequence[bytes],
    options: GenerationOptions | None = None,
    limits: PictureLimits = DEFAULT_LIMITS,
    mapped: Mapped = map,
) -> list[Outcome]:
    """Caption a batch of picture files' bytes, in their order. `mapped` decodes them, say a thread pool's `map`."""

    def decode(data: bytes) -> NDArray[np.uint8] | PictureError:
        try:
            return decode_for_model(data, captioner.bundle.contract, limits).pixels
        except PictureError as error:
            return error

    outcomes: list[Any] = list(mapped(decode, pictures))
    good = [number for number, one in enumerate(outcomes) if not isinstance(one, PictureError)]
    for number, outcome in zip(good, _captions(captioner, [outcomes[n] for n in good], options), strict=True):
        outcomes[number] = outcome
    return outcomes


def _captions(
    captioner: Captioner, pixels: Sequence[NDArray[np.uint8]], options: GenerationOptions | None
) -> list[Outcome]:
    """One pass for all; if the model fails on it, each alone, so that only the culprit is without a caption."""
    if not pixels:
        return []
    try:
        return list(captioner.caption_pixels(np.stack(pixels), options))
    except Exception as error:
        if len(pixels) == 1:
            return [PictureFailedError(f"The model failed on it ({type(error).__name__}: {error}). Report it.")]
    return [outcome for one in pixels for outcome in _captions(captioner, [one], options)]
