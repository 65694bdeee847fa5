"""Near duplicates: the same picture re-encoded or resized, and not its sibling in another colour.

A 64-bit difference hash of the grey picture finds candidates without comparing all pairs; a small colour thumbnail
decides. The hash alone cannot: the five skin tones of one drawing have the same grey edges. Mean difference alone
cannot either: they differ in a few cells only. So the largest difference of a cell counts as well.

Difference hash: N. Krawetz, "Kind of Like That", 2013. Search by bands: M. Norouzi et al., "Fast Exact Search in
Hamming Space with Multi-Index Hashing", 2014: hashes within 7 bits agree, but for one bit, in one of four 16-bit bands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THUMB_PX = 16
HASH_WIDTH, HASH_HEIGHT = 9, 8
EDGE_LEVELS = 4  # flat areas stay 0 under the noise of JPEG
BANDS, BAND_BITS = 4, 16
MAX_HASH_BITS = 7  # BANDS * (1 + 1) - 1
PAIRS_PER_CHUNK = 2_000_000  # 64 MB of candidates at a time


@dataclass(frozen=True)
class Thresholds:
    """How far apart two thumbnails of one picture may be, in levels of 0..255."""

    mean_levels: float = 3.0  # over all cells and channels; re-encoded photographs reach 2.2
    cell_levels: float = 26.0  # of the cell and channel that differs most; re-encoded photographs reach 12, siblings in
    # the next skin tone of one OpenMoji drawing start at 33


DEFAULT_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Signature:
    """What is kept of a picture for comparison."""

    edges: int  # 64 bits
    thumb: NDArray[np.uint8]  # (16, 16, 3)


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures, by position, `first` < `second`."""

    first: int
    second: int
    mean_levels: float


def signature(picture: Image.Image) -> Signature:
    """Hash and thumbnail of a decoded RGB picture."""
    thumb = picture.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
    return Signature(edge_hash(picture), np.asarray(thumb, dtype=np.uint8))


def edge_hash(picture: Image.Image) -> int:
    """64 bits: is each cell of a 9 x 8 grey picture brighter than its right neighbour?"""
    grey = picture.convert("L").resize((HASH_WIDTH, HASH_HEIGHT), Image.Resampling.BOX)
    levels = np.asarray(grey, dtype=np.int16)  # (8, 9)
    bits = levels[:, :-1] > levels[:, 1:] + EDGE_LEVELS  # (8, 8)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_duplicates(
    signatures: Sequence[Signature], thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> list[NearDuplicate]:
    """All pairs whose hashes differ in at most 7 bits and whose thumbnails agree, ordered by position."""
    if len(signatures) < 2:
        return []
    hashes = np.array([item.edges for item in signatures], dtype=np.uint64)
    thumbs = np.stack([item.thumb for item in signatures])  # (N, 16, 16, 3)
    colours = thumbs.mean(axis=(1, 2), dtype=np.float32)  # (N, 3)
    found = [
        pair
        for first, second in candidate_pairs(hashes)
        for pair in _verified(thumbs, colours, first, second, thresholds)
    ]
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def candidate_pairs(hashes: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield chunks (first, second) of positions, first < second, whose hashes differ in at most MAX_HASH_BITS bits.

    Each pair comes once: in the first band that it nearly agrees in. Memory is bounded by the chunk; time grows with
    the number of pairs that nearly agree in a band, so it is quadratic only among pictures that share their edges.
    """
    for band in range(BANDS):
        keys = ((hashes >> np.uint64(band * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        for flip in (0, *(1 << bit for bit in range(BAND_BITS))):
            start = np.searchsorted(keys[order], keys ^ flip, side="left")
            stop = np.searchsorted(keys[order], keys ^ flip, side="right")
            for first, second in _expand(order, start, stop):
                ahead = first < second
                first, second = first[ahead], second[ahead]
                close = _first_met_here(hashes[first] ^ hashes[second], band)
                if close.any():
                    yield first[close], second[close]


def _first_met_here(differing: NDArray[np.uint64], band: int) -> NDArray[np.bool_]:
    """Close enough, and not found in an earlier band."""
    close = np.bitwise_count(differing) <= MAX_HASH_BITS
    for earlier in range(band):
        part = (differing >> np.uint64(earlier * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)
        close &= np.bitwise_count(part) > 1
    return close


def _expand(
    order: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Row i meets the rows order[start[i]:stop[i]]; yield the meetings in chunks of about PAIRS_PER_CHUNK."""
    lengths = stop - start
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(PAIRS_PER_CHUNK, ends[-1] + PAIRS_PER_CHUNK, PAIRS_PER_CHUNK))
    low = 0
    for cut in cuts:
        high = min(int(cut) + 1, len(lengths))
        if high <= low:
            continue
        part = lengths[low:high]
        first = np.repeat(np.arange(low, high), part)
        offset = np.arange(part.sum()) - np.repeat(np.cumsum(part) - part, part)
        yield first, order[np.repeat(start[low:high], part) + offset]
        low = high


def _verified(
    thumbs: NDArray[np.uint8],
    colours: NDArray[np.float32],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    thresholds: Thresholds,
) -> Iterator[NearDuplicate]:
    alike = np.abs(colours[first] - colours[second]).mean(axis=1) <= thresholds.mean_levels  # a bound, and cheap
    first, second = first[alike], second[alike]
    for low in range(0, len(first), 4096):
        one, other = first[low : low + 4096], second[low : low + 4096]
        gap = np.abs(thumbs[one].astype(np.int16) - thumbs[other].astype(np.int16))  # (n, 16, 16, 3)
        mean = gap.mean(axis=(1, 2, 3))
        cell = gap.max(axis=(1, 2, 3))
        for index in np.flatnonzero((mean <= thresholds.mean_levels) & (cell <= thresholds.cell_levels)):
            yield NearDuplicate(int(one[index]), int(other[index]), float(mean[index]))
