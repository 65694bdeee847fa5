"""Near duplicates that ended in different splits, looked for anew: all it knows are the thumbnails and the splits.

The hashes that find candidates and the comparison that decides are those of the splitter. Its links, the sets that it
made of them, what it settled and what it wrote are not asked. Pairs within a split are left out before anything is
compared, so it costs less than the search that made the splits; thumbnails are read from the disk as they are needed.
"""

from collections.abc import Iterator

import numpy as np

from vlm_assets.data.alignment import Bytes
from vlm_assets.data.dedup import PAIRS_PER_BATCH, Thresholds, compare, looks, shrunk
from vlm_assets.data.edge_hashes import Candidates, Positions, Selection, candidate_pairs


def torn_pairs(thumbs: Bytes, split: Positions, thresholds: Thresholds) -> Iterator[tuple[int, int]]:
    """Yield positions of near duplicates of which one is in another split than the other; of equal ones the oldest.

    `thumbs` (N, 32, 32, 3), `split` (N,): a number for each split. A pair may come twice.
    """
    look = looks(thumbs)
    alike = np.flatnonzero(split != split[look])
    yield from zip(look[alike].tolist(), alike.tolist(), strict=True)
    distinct = np.flatnonzero(look == np.arange(len(look)))
    shown, of = Selection(thumbs, distinct), split[distinct]
    for pairs in candidate_pairs(shown, lambda first, second: of[first] == of[second]):
        for low in range(0, len(pairs.first), PAIRS_PER_BATCH):
            batch = Candidates(*(part[low : low + PAIRS_PER_BATCH] for part in pairs))
            near = _near(shown, batch, thresholds)
            ends = np.sort([distinct[batch.first[near]], distinct[batch.second[near]]], axis=0)
            yield from zip(*ends.tolist(), strict=True)


def _near(thumbs: Selection, pairs: Candidates, thresholds: Thresholds) -> Positions:
    """Which of a few pairs are near duplicates; only their thumbnails are read."""
    positions, place = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    first, second = np.split(place, 2)
    levels = thumbs[positions]
    near, _, _ = compare(levels, shrunk(levels), Candidates(first, second, pairs.window), thresholds)
    return np.flatnonzero(near)
