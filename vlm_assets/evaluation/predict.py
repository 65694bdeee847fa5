"""Captions of a split, through the very Captioner that serves, on the very pixels that the shards hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_assets.errors import ConfigError
from vlm_assets.evaluation.pictures import PictureBatch, count_rows, picture_batches
from vlm_serving.progress import Progress

if TYPE_CHECKING:  # the captioner's module imports torch
    from vlm_serving.captioner import Caption

CaptionTable = Any  # a pyarrow.Table of CAPTION_SCHEMA; pyarrow ships no types
CAPTION_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("caption", pa.string()),
        ("confidence", pa.float64()),  # null where the system has none (baselines)
        ("token_count", pa.int32()),  # likewise, as are these two
        ("word_probabilities", pa.list_(pa.float64())),  # one per word of the caption (split at blanks), 0..1
        ("token_ids", pa.list_(pa.int32())),  # as generated, with the end
        ("references", pa.list_(pa.string())),
        ("slots", pa.string()),
        ("brightness", pa.float64()),  # mean of the picture's channels, 0..1
        ("cluster", pa.string()),  # what it may not be torn from: its group and near duplicates; itself if unknown
        ("source", pa.string()),  # the outermost folder in the source; "" if unknown
    ]
)
ONLY_OF_MODELS = ("confidence", "token_count", "word_probabilities", "token_ids")


class PixelCaptioner(Protocol):
    """The part of `vlm_serving.captioner.Captioner` that evaluation needs."""

    def caption_pixels(self, pixels: NDArray[np.uint8], /) -> list[Caption]:
        """uint8 (B, 3, H, W) -> B captions, as a request without options gets them."""
        ...


def caption_split(
    captioner: PixelCaptioner,
    shard_files: Sequence[Path],
    batch_size: int,
    log: Callable[[str], None],
    *,
    label: str = "captions",
    limit: int = 0,
    view: Callable[[PictureBatch], NDArray[np.uint8]] | None = None,
) -> CaptionTable:
    """Caption the pictures of `shard_files` in order; a table of CAPTION_SCHEMA, one row per picture.

    `view` gives the captioner other pixels of a batch's pictures than those of the shards.

    `limit` > 0 takes the first rows only. Captions are generated as the captioner does by itself: as it serves.
    Raises ConfigError if there is nothing to caption.
    """
    total = count_rows(shard_files, limit)
    if total == 0:
        raise ConfigError(f"Nothing to caption for {label}: the split has 0 pictures. Check evaluation's `splits`.")
    return caption_batches(captioner, picture_batches(shard_files, batch_size, limit), total, log, label, view)


def caption_batches(
    captioner: PixelCaptioner,
    batches: Iterable[PictureBatch],
    total: int,
    log: Callable[[str], None],
    label: str,
    view: Callable[[PictureBatch], NDArray[np.uint8]] | None = None,
) -> CaptionTable:
    """The same of `total` pictures, one or more, wherever they come from."""
    progress = Progress(label, total, log)
    tables: list[CaptionTable] = []
    for batch in batches:
        captions = captioner.caption_pixels(view(batch) if view else batch.pixels)
        tables.append(_table(batch, captions))
        progress.advance(len(captions))
    progress.done()
    return pa.concat_tables(tables)


def brightness(pixels: NDArray[np.uint8]) -> list[float]:
    """Mean of all channels of each picture in (B, 3, H, W), as a share of full white."""
    means: NDArray[np.float64] = pixels.mean(axis=(1, 2, 3), dtype=np.float64) / 255
    return means.tolist()


def _table(batch: PictureBatch, captions: Sequence[Caption]) -> CaptionTable:
    columns: dict[str, list[Any]] = {
        "image_id": batch.image_ids,
        "caption": [caption.text for caption in captions],
        "confidence": [caption.confidence for caption in captions],
        "token_count": [caption.token_count for caption in captions],
        "word_probabilities": [[word.probability for word in caption.words] for caption in captions],
        "token_ids": [caption.token_ids for caption in captions],
        "references": batch.captions,
        "slots": batch.slots,
        "brightness": brightness(batch.pixels),
        "cluster": batch.image_ids,
        "source": [""] * len(batch.image_ids),
    }
    return pa.table(columns, schema=CAPTION_SCHEMA)
