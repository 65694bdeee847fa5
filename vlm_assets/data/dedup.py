"""Near duplicates: the same picture re-encoded, resized, slightly cropped or relit, not its sibling in another colour.

Three steps, each dearer and surer than the one before. Hashes of the edges find candidates without comparing all pairs
(edge_hashes.py). Thumbnails that agree as they are need no more. The others are laid over each other, a few per cent of
frame and of brightness being free, and compared in colour (alignment.py). Two limits decide: the mean difference, and
the largest of any cell, because the five skin tones of one drawing differ in a few cells only.

Whether two pictures are near duplicates depends on these two alone; so appended pictures change nothing among old ones.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_assets.data.alignment import THUMB_PX, Bytes, Floats, aligned, cells, differences, frame
from vlm_assets.data.clusters import Sets
from vlm_assets.data.edge_hashes import WINDOWS, Candidates, Positions, candidate_pairs

FRAMES = np.array([frame(*window) for window in WINDOWS], dtype=np.float32)
Signature = Bytes  # (32, 32, 3): the thumbnail of a picture, 3 kB
PAIRS_PER_BATCH = 64  # aligned at a time: 3 MB, which stay in the cache


@dataclass(frozen=True)
class Thresholds:
    """How far apart two thumbnails of one picture may be, in levels of 0..255."""

    mean_levels: float = 4.5  # over all cells and channels; crops of photographs reach 3 to 4
    cell_levels: float = 24.0  # of the cell and channel that differs most; siblings in the next skin tone of one
    # OpenMoji drawing start at 25, crops of photographs seldom reach it


DEFAULT_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Links:
    """Near duplicates among N pictures, by position: enough pairs to connect what belongs together.

    Of a set of pictures that resemble each other all round, not every pair is a link: a crowd of 5,000 would have 12
    million. Pictures with equal thumbnails share a look, known by its oldest picture; links are between looks.
    """

    look: Positions  # (N,): the oldest picture with this very thumbnail
    first: Positions  # (P,): looks, first < second, in order
    second: Positions  # (P,)
    mean_levels: Floats  # (P,)
    cell_levels: Floats  # (P,)

    def __len__(self) -> int:
        """Number of links: between looks, and of each later picture with the oldest of its look."""
        return len(self.first) + int((self.look != np.arange(len(self.look))).sum())

    def rows(self) -> Iterator[tuple[int, int, float]]:
        """(position, position, mean levels) of every link that `len` counts."""
        same = np.flatnonzero(self.look != np.arange(len(self.look)))
        yield from zip(self.look[same].tolist(), same.tolist(), [0.0] * len(same), strict=True)
        yield from zip(self.first.tolist(), self.second.tolist(), self.mean_levels.tolist(), strict=True)


def signature(picture: Image.Image) -> Signature:
    """What is kept of a decoded RGB picture, whatever its aspect ratio: means over 32 x 32 cells."""
    return np.asarray(picture.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX), dtype=np.uint8)


def near_duplicates(
    thumbs: Bytes | Sequence[Signature], thresholds: Thresholds = DEFAULT_THRESHOLDS, *, every_pair: bool = False
) -> Links:
    """What looks the same among the thumbnails (N, 32, 32, 3): links that connect it, or every pair of looks."""
    levels = np.asarray(thumbs, dtype=np.uint8).reshape(-1, THUMB_PX, THUMB_PX, 3)
    look = looks(levels)
    distinct = np.flatnonzero(look == np.arange(len(look)))
    if len(distinct) < len(look):
        levels = levels[distinct]
    none = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.float32))
    parts = _near_pairs(levels, thresholds, None if every_pair else Sets(len(levels)))
    codes, mean, cell = (np.concatenate(part) for part in zip(none, *parts, strict=True))
    order = np.lexsort((mean, codes))  # of a pair that was found both ways, the closer
    keep = order[np.flatnonzero(np.diff(codes[order], prepend=-1))]
    first, second = np.divmod(codes[keep], max(len(levels), 1))
    return Links(look, distinct[first], distinct[second], mean[keep], cell[keep])


def pairs_among(
    thumbs: Bytes | Sequence[Signature], looks: Positions, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> tuple[Positions, Positions]:
    """Every pair of near duplicates among some looks, by their positions in `thumbs`."""
    found = near_duplicates([thumbs[look] for look in looks.tolist()], thresholds, every_pair=True)
    return looks[found.first], looks[found.second]


def looks(levels: Bytes) -> Positions:
    """(N,): the position of the first thumbnail with the same content."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in levels)
    return np.array([seen.setdefault(digest, at) for at, digest in enumerate(digests)], dtype=np.int64)


def _near_pairs(levels: Bytes, thresholds: Thresholds, sets: Sets | None) -> Iterator[tuple[Positions, Floats, Floats]]:
    """Yield (first * N + second, mean, cell), first < second: links between `sets`, or every pair, some twice."""
    parts = np.array_split(levels, len(levels) // 4096 + 1)
    small = np.concatenate([shrunk(part) for part in parts])
    for pairs in candidate_pairs(levels, sets.together if sets else None):
        while len(pairs.first):
            batch = Candidates(*(part[:PAIRS_PER_BATCH] for part in pairs))
            pairs = Candidates(*(part[PAIRS_PER_BATCH:] for part in pairs))
            near, mean, cell = compare(levels, small, batch, thresholds)
            ends = np.sort([batch.first[near], batch.second[near]], axis=0)
            codes, mean, cell = ends[0] * len(levels) + ends[1], mean[near], cell[near]
            if sets is not None and len(codes):
                linking = [sets.join(*divmod(code, len(levels))) for code in codes.tolist()]
                codes, mean, cell = codes[linking], mean[linking], cell[linking]
                apart = ~sets.together(pairs.first, pairs.second)
                pairs = Candidates(*(part[apart] for part in pairs))
            yield codes, mean, cell


def shrunk(levels: Bytes) -> Bytes:
    """(N, 32, 32, 3) to (N, 16, 16, 3): what is compared before anything is aligned."""
    return np.rint(cells(levels)).astype(np.uint8)


def compare(
    levels: Bytes, small: Bytes, pairs: Candidates, thresholds: Thresholds
) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Of each pair of the thumbnails: near duplicates or not, and the mean and the largest difference (levels)."""
    first, second, window = pairs
    gap = np.abs(small[first].astype(np.int16) - small[second]).reshape(len(first), -1)
    mean, cell = gap.mean(axis=1, dtype=np.float32), gap.max(axis=1).astype(np.float32)
    unlike = np.flatnonzero(~thresholds_met(mean, cell, thresholds))
    if len(unlike):
        one, other = levels[first[unlike]], levels[second[unlike]]
        mean[unlike], cell[unlike] = differences(one, other, aligned(one, other, FRAMES[window[unlike]]))
    return thresholds_met(mean, cell, thresholds), mean, cell


def thresholds_met(mean: Floats, cell: Floats, thresholds: Thresholds) -> NDArray[np.bool_]:
    """Are both differences within the limits?"""
    return (mean <= thresholds.mean_levels) & (cell <= thresholds.cell_levels)
