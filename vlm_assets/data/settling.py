"""Splits from links: as if every pair of near duplicates were known, at the price of the few that connect them.

A set of pictures that resemble each other all round is connected by fewer links than it has pairs. That is enough as
long as the whole set ends in one split. Where a row of it had to be dropped, because it would have tied two splits
together, what hung on it may come apart; so for those sets every pair is looked up and the splits are assigned again.
The result is that of all pairs: a set without a dropped row has one split by its links, and more pairs within it say
nothing new.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vlm_assets.data.dedup import Links
from vlm_assets.data.edge_hashes import Positions
from vlm_assets.data.split import Assignment, Candidate, SplitPlan, assign_splits

PairsAmong = Callable[[Positions], tuple[Positions, Positions]]


def settle(rows: Sequence[Candidate], links: Links, pairs_among: PairsAmong, plan: SplitPlan) -> Assignment:
    """Assign the splits. The look of a row is the picture that it shows, of those that the links are about.

    `pairs_among` gives every pair of near duplicates among some looks of the links.
    """
    first, second, pictures = links.first, links.second, np.arange(len(links.look))
    shown = np.array([at if row.look is None else row.look for at, row in enumerate(rows)], dtype=np.int64)
    component = _components(len(pictures), np.append(links.look, first), np.append(pictures, second))
    sizes = np.bincount(component, minlength=1)
    known: set[int] = set()
    while True:
        result = assign_splits(_with_twins(rows, links.look[shown], first, second), plan)
        torn = {int(component[shown[position]]) for position in result.dropped} - known
        torn = {one for one in torn if sizes[one] > 2}  # two pictures have but one pair
        if not torn:
            return result
        known |= torn
        looks = np.flatnonzero(np.isin(component, list(torn)) & (links.look == pictures))
        more_first, more_second = pairs_among(looks)
        first, second = np.append(first, more_first), np.append(second, more_second)


def _components(count: int, first: Positions, second: Positions) -> Positions:
    from scipy.sparse import coo_array  # 0.2 s that the code location need not spend
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _with_twins(rows: Sequence[Candidate], look: Positions, first: Positions, second: Positions) -> Sequence[Candidate]:
    """The rows, each with its look and the looks near to that, older and younger."""
    ends, near = np.append(first, second), np.append(second, first)
    order = np.argsort(ends, kind="stable")
    ends, near = ends[order], near[order]
    starts, stops = (
        np.searchsorted(ends, look, side="left").tolist(),
        np.searchsorted(ends, look, side="right").tolist(),
    )
    return [
        replace(row, look=of, twins=near[start:stop].tolist() if start < stop else ())
        for row, of, start, stop in zip(rows, look.tolist(), starts, stops, strict=True)
    ]
