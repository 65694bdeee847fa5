"""Two captioners without a model. A fine-tuned model that does not beat both has learnt nothing worth releasing.

1. *Most frequent*: the same caption for every picture, the commonest of the training split.
2. *Copy*: the first caption of the nearest training picture. Near means the smallest Euclidean distance between the
   pictures shrunk to 32 x 32 RGB (area average): no features, no learning. On data with few kinds of pictures this is
   a hard baseline for overlap metrics such as CIDEr, and a weak one for exact matches.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from vlm_assets.evaluation.pictures import count_rows, picture_batches
from vlm_assets.evaluation.predict import ONLY_OF_MODELS, CaptionTable
from vlm_serving.progress import Progress

THUMBNAIL_PX = 32
READ_ROWS = 256


@dataclass(frozen=True)
class Nearest:
    """For each of M queries: the row of the nearest training picture and the RMS difference to it, 0..1."""

    rows: NDArray[np.int64]  # (M,)
    distances: NDArray[np.float32]  # (M,)


def most_frequent_caption(captions: Iterable[str]) -> str:
    """The commonest caption; among equally common ones the first in alphabetical order."""
    counts = Counter(captions)
    return min(counts, key=lambda text: (-counts[text], text))


def thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (B, 3, H, W) -> (B, 3072): 32 x 32 RGB by area average, 0..1."""
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    small = [Image.fromarray(rows).resize(size, Image.Resampling.BOX) for rows in pixels.transpose(0, 2, 3, 1)]
    return np.stack([np.asarray(picture, dtype=np.float32).ravel() for picture in small]) / np.float32(255)


def nearest(queries: NDArray[np.float32], candidates: Iterable[NDArray[np.float32]]) -> Nearest:
    """The nearest candidate of each query (M, D), candidates streamed in blocks (B, D): memory is M x (D + B).

    Ties go to the earlier candidate. The squared distance is |q|^2 - 2 q.c + |c|^2; |q|^2 is added at the end.
    """
    best = np.full(len(queries), np.inf, dtype=np.float32)
    rows = np.zeros(len(queries), dtype=np.int64)
    start = 0
    for block in candidates:
        partial = (block**2).sum(axis=1) - 2 * (queries @ block.T)  # (M, B)
        column = partial.argmin(axis=1)
        value = partial[np.arange(len(queries)), column]
        closer = value < best
        best[closer], rows[closer] = value[closer], start + column[closer]
        start += len(block)
    squared = np.maximum(best + (queries**2).sum(axis=1), 0)
    return Nearest(rows, np.sqrt(squared / queries.shape[1]))


def nearest_training_pictures(
    splits: Mapping[str, Sequence[Path]],
    train_files: Sequence[Path],
    log: Callable[[str], None],
    *,
    limit: int = 0,
) -> dict[str, Nearest]:
    """For each picture of every split (the first `limit` of each, 0: all) its nearest training picture.

    The training pictures are read once, whatever the number of splits.
    """
    queries = {name: thumbnails_of(files, limit) for name, files in splits.items()}
    progress = Progress("nearest training picture", count_rows(train_files), log)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for block in _thumbnail_blocks(train_files):
            yield block
            progress.advance(len(block))

    found = nearest(np.concatenate(list(queries.values())), blocks())
    progress.done()
    ends = np.cumsum([len(query) for query in queries.values()])[:-1]
    pieces = zip(np.split(found.rows, ends), np.split(found.distances, ends), strict=True)
    return {name: Nearest(rows, distances) for name, (rows, distances) in zip(queries, pieces, strict=True)}


def with_captions(table: CaptionTable, captions: Sequence[str]) -> CaptionTable:
    """`table` (predict.CAPTION_SCHEMA) with other captions; what only a model has (confidence, …) becomes null."""
    replaced = {"caption": pa.array(captions, pa.string())}
    replaced |= {name: pa.nulls(len(captions), table.schema.field(name).type) for name in ONLY_OF_MODELS}
    for name, column in replaced.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


def thumbnails_of(files: Sequence[Path], limit: int = 0) -> NDArray[np.float32]:
    """The thumbnails of the pictures in `files` (the first `limit`, 0: all), in order: (N, 3072)."""
    return np.concatenate(list(_thumbnail_blocks(files, limit)))


def _thumbnail_blocks(files: Sequence[Path], limit: int = 0) -> Iterator[NDArray[np.float32]]:
    for batch in picture_batches(files, READ_ROWS, limit):
        yield thumbnails(batch.pixels)
