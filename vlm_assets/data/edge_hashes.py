"""Which thumbnails may show the same picture? 126 bits of edges, of the whole thumbnail and of windows in it.

A hash says of the grey picture which cells are brighter than their neighbour: 63 to the right, 63 below (N. Krawetz,
"Kind of Like That", 2013). It survives JPEG, scaling and brightness, but not a crop: trimming 5 % off every edge turns
over 26 of 126 bits of a photograph in the median. So each thumbnail is also hashed through 25 windows that leave out 0,
2.5 or 5 % at the edges, and a window of one picture is looked up among the whole others: a crop is what a window shows.

Two hashes are compared only if they agree in one of six bands of 21 bits (locality-sensitive hashing: P. Indyk and
R. Motwani, STOC 1998): then a lookup among a million random hashes meets one by chance in two. Each band takes every
sixth bit, so that a white margin, whose bits are all zero, fills no band. Whether a pair is found depends on nothing
but the two pictures: more pictures find more pairs and never fewer.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlm_assets.data.alignment import GAINS, GREY, THUMB_PX, Bytes, Floats

LINES, CELLS = 7, 9  # comparisons: 7 lines of 9, and as many columns
EDGE_LEVELS = 4  # flat areas stay 0 under the noise of JPEG
BANDS, BAND_BITS = 6, 21
BANDS_PER_WORD = 3
MAX_HASH_BITS = 13  # of 126 between a window and the crop that it shows; 99 of 100 crops of photographs differ in less
MAX_COLOUR_LEVELS = 12.0  # between mean colours, but for a gain; a crop changes them a little
PATCHES = 4  # per side of a window; their colours tell strangers with similar edges, before anything is aligned
MAX_PATCH_LEVELS = 9.0  # in the mean over patches; 995 of 1,000 crops stay below, 92 of 100 strangers do not
MAX_ONE_PATCH_LEVELS = 35.0  # in the worst of them; of strangers on white that are left half go, of crops 1 in 1,000
Trims = tuple[tuple[float, float], ...]
TRIMS: Final[Trims] = (
    (0, 0),
    (0.05, 0),
    (0, 0.05),
    (0.05, 0.05),
    (0.025, 0.025),
)  # off both ends of one side, as shares
WINDOWS: Final = tuple((*x, *y) for x, y in product(TRIMS, TRIMS))  # (left, right, top, bottom); the first is the whole
ROWS_PER_CHUNK = 1024  # their windows stay in the cache
PAIRS_PER_CHUNK = 1_000_000
HASHES_PER_CHUNK = 20_000  # pairs x 25 windows x 16 bytes = 8 MB

Words = NDArray[np.uint64]
Positions = NDArray[np.int64]
Known = Callable[[Positions, Positions], NDArray[np.bool_]]


class Candidates(NamedTuple):
    """Pairs of positions, and the window of `first` that looks most like the whole of `second`."""

    first: Positions
    second: Positions
    window: Positions


class Selection:
    """Some thumbnails of many, which may lie on the disk: what is asked for is read, and nothing else."""

    def __init__(self, thumbs: Bytes, positions: Positions) -> None:
        self._thumbs, self._positions = thumbs, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, some: slice | Positions) -> Bytes:
        return self._thumbs[self._positions[some]]


def window_hashes(thumbs: Bytes, trims: Trims = TRIMS) -> Words:
    """(N, 32, 32, 3) thumbnails to (N, 25, 2) words of 63 bits: a hash for each window that the trims make."""
    count, sides = len(thumbs), len(trims)
    grey = thumbs @ GREY  # (N, 32, 32)
    lines, columns = _cells(LINES, trims), _cells(CELLS + 1, trims)  # (5 * 7, 32), (5 * 10, 32)
    right = (lines @ (grey @ columns.T)).reshape(count, sides, LINES, sides, CELLS + 1)
    below = (columns @ (grey @ lines.T)).reshape(count, sides, CELLS + 1, sides, LINES)
    bits = np.empty((count, sides, sides, 2, LINES, CELLS), dtype=np.bool_)  # x before y, as in WINDOWS
    bits[:, :, :, 0] = (right[..., :-1] > right[..., 1:] + EDGE_LEVELS).transpose(0, 3, 1, 2, 4)
    bits[:, :, :, 1] = (below[:, :, :-1] > below[:, :, 1:] + EDGE_LEVELS).transpose(0, 3, 1, 4, 2)
    spread = bits.reshape(count, -1, BAND_BITS, BANDS).swapaxes(2, 3).reshape(count, -1, 2, BAND_BITS * BANDS_PER_WORD)
    words = np.zeros((*spread.shape[:3], 64), dtype=np.bool_)
    words[..., : spread.shape[3]] = spread
    return np.packbits(words, axis=3, bitorder="little").view("<u8").reshape(count, -1, 2)


def candidate_pairs(thumbs: Bytes | Selection, known: Known | None = None) -> Iterator[Candidates]:
    """Pairs worth a closer look, in order of `first`; a pair may come in both directions.

    `known` says of pairs of positions that nothing need be found out about them any more. Time grows with the number of
    rows and with that of pairs that agree in a band, memory by 100 bytes a row and the chunks.
    """
    if len(thumbs) < 2:
        return
    chunks = _chunks(len(thumbs))
    whole = np.concatenate([window_hashes(thumbs[low:high], TRIMS[:1])[:, 0] for low, high in chunks])
    patches = np.concatenate([_whole_patches(thumbs[low:high]) for low, high in chunks])
    colours = patches.reshape(len(thumbs), -1, 3).mean(axis=1, dtype=np.float32)  # (N, 3)
    tables = [BandTable(band_keys(whole, band)) for band in range(BANDS)]
    for low, high in chunks:
        words, windows = window_hashes(thumbs[low:high]), _patches(thumbs[low:high])
        met = [_meetings(words, low, band, table, colours, known) for band, table in enumerate(tables)]
        for codes in _parts(_distinct(np.concatenate(met))):
            first, second = np.divmod(codes, len(thumbs))
            if known is not None:
                fresh = ~known(first, second)
                first, second = first[fresh], second[fresh]
            apart = np.bitwise_count(words[first - low] ^ whole[second][:, None])  # (P, 25, 2)
            bits = apart[..., 0] + apart[..., 1]  # (P, 25), below 127
            window = bits.argmin(axis=1)
            close = bits[np.arange(len(bits)), window] <= MAX_HASH_BITS
            first, second, window = first[close], second[close], window[close]
            alike = _same_patches(windows[first - low, window], patches[second])
            if alike.any():
                yield Candidates(first[alike], second[alike], window[alike])


class BandTable:
    """Positions by the value of one band."""

    def __init__(self, keys: NDArray[np.int32]) -> None:
        self.order = np.argsort(keys, kind="stable").astype(np.int32)
        self.values, starts = np.unique(keys[self.order], return_index=True)
        self.bounds = np.append(starts, len(keys))

    def ranges(self, keys: NDArray[np.int32]) -> tuple[Positions, Positions]:
        """Where in `order` the positions of each key start and stop; empty where there is none."""
        place = np.minimum(np.searchsorted(self.values, keys), len(self.values) - 1)
        known = self.values[place] == keys
        start = self.bounds[place]
        return start, np.where(known, self.bounds[place + 1], start)


def band_keys(words: Words, band: int) -> NDArray[np.int32]:
    """The 21 bits of one band of hashes (..., 2)."""
    word, part = divmod(band, BANDS_PER_WORD)
    return ((words[..., word] >> np.uint64(part * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)).astype(np.int32)


def _meetings(words: Words, low: int, band: int, table: BandTable, colours: Floats, known: Known | None) -> Positions:
    """Pairs that agree in the band and about in colour, as first * N + second, each once."""
    keys = np.sort(band_keys(words, band), axis=1)  # (n, 25)
    fresh = np.ones(keys.shape, dtype=np.bool_)
    fresh[:, 1:] = keys[:, 1:] != keys[:, :-1]  # windows that share the band's value look it up once
    rows = np.nonzero(fresh)[0] + low
    start, stop = table.ranges(keys[fresh])
    found: list[Positions] = []
    for first, place in _expand(rows, start, stop):
        second = table.order[place].astype(np.int64)
        alike = (first != second) if known is None else ~known(first, second)
        first, second = first[alike], second[alike]
        alike = _same_colour(colours[first], colours[second])
        found.append(first[alike] * len(colours) + second[alike])
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _same_colour(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Do the mean colours agree, but for a brightness that a copy may have?"""
    gain = np.clip((one.sum(axis=1) + 1) / (other.sum(axis=1) + 1), *GAINS)
    return np.abs(one - other * gain[:, None]).mean(axis=1) <= MAX_COLOUR_LEVELS


def _expand(rows: Positions, start: Positions, stop: Positions) -> Iterator[tuple[Positions, Positions]]:
    """Row i meets the places start[i] to stop[i]; yield the meetings in chunks of about PAIRS_PER_CHUNK."""
    some = stop > start
    rows, start, lengths = rows[some], start[some], (stop - start)[some]
    ends = np.cumsum(lengths)
    low = 0
    while low < len(rows):
        done = ends[low] - lengths[low]
        high = max(int(np.searchsorted(ends, done + PAIRS_PER_CHUNK, side="right")), low + 1)
        part = lengths[low:high]
        offset = np.arange(part.sum()) - np.repeat(ends[low:high] - part - done, part)
        yield np.repeat(rows[low:high], part), np.repeat(start[low:high], part) + offset
        low = high


def _patches(thumbs: Bytes, trims: Trims = TRIMS) -> Floats:
    """(N, 25, 48): mean colours of the 4 x 4 patches of each window."""
    cells, count, sides = _cells(PATCHES, trims), len(thumbs), len(trims)
    rows = cells @ thumbs.reshape(count, THUMB_PX, THUMB_PX * 3).astype(np.float32)
    patches = cells @ rows.reshape(count, -1, THUMB_PX, 3)  # (N, 5 * 4, 5 * 4, 3), y before x
    return (
        patches.reshape(count, sides, PATCHES, sides, PATCHES, 3)
        .transpose(0, 3, 1, 2, 4, 5)
        .reshape(count, sides * sides, -1)
    )


def _whole_patches(thumbs: Bytes) -> Bytes:
    """(N, 48): those of the whole thumbnail, in whole levels."""
    return np.rint(_patches(thumbs, TRIMS[:1])[:, 0]).astype(np.uint8)


def _same_patches(window: Floats, whole: Bytes) -> NDArray[np.bool_]:
    """Do the patches (P, 48) agree on the whole, but for a brightness that a copy may have?"""
    other = whole.astype(np.float32)
    gain = np.clip(((window * other).sum(axis=1) + 1) / ((window * window).sum(axis=1) + 1), *GAINS)
    gap = np.abs(np.minimum(window * gain[:, None], 255) - other)
    return (gap.mean(axis=1) <= MAX_PATCH_LEVELS) & (gap.max(axis=1) <= MAX_ONE_PATCH_LEVELS)


def _cells(count: int, trims: Trims) -> Floats:
    """(5 * count, 32): how much of each thumbnail pixel lies in each of `count` cells, for every trim of a side."""
    edges = np.concatenate(
        [np.linspace(before * THUMB_PX, (1 - after) * THUMB_PX, count + 1)[:, None] for before, after in trims], axis=1
    )  # (count + 1, 5)
    pixels = np.arange(THUMB_PX)
    covered = np.clip(edges.T[..., None] - pixels, 0, 1)  # (5, count + 1, 32): the share of each pixel before an edge
    weights = np.diff(covered, axis=1).reshape(-1, THUMB_PX)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _chunks(count: int) -> list[tuple[int, int]]:
    return [(low, min(low + ROWS_PER_CHUNK, count)) for low in range(0, count, ROWS_PER_CHUNK)]


def _distinct(codes: Positions) -> Positions:
    """Each once, in order. Sorting whole numbers is ten times as fast as the hash table of np.unique."""
    codes.sort()
    return codes[np.flatnonzero(np.diff(codes, prepend=-1))]


def _parts(codes: Positions) -> Iterator[Positions]:
    for low in range(0, len(codes), HASHES_PER_CHUNK):
        yield codes[low : low + HASHES_PER_CHUNK]
