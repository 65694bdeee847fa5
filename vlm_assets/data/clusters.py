"""Disjoint sets: what belongs together, directly or through others."""

from collections.abc import Hashable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", bound=Hashable)


class Clusters(Generic[Item]):
    """Union-find over hashable items. A set is known by its oldest member, so a set keeps its name as it grows."""

    def __init__(self) -> None:
        self._parent: dict[Item, Item] = {}
        self._age: dict[Item, int] = {}

    def find(self, item: Item) -> Item:
        """The oldest member of the item's set; an unknown item becomes a set of its own."""
        if item not in self._parent:
            self._parent[item] = item
            self._age[item] = len(self._age)
        root = item
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[item] != root:  # shorten the path for the next search
            self._parent[item], item = root, self._parent[item]
        return root

    def join(self, one: Item, other: Item) -> Item:
        """Make both items' sets one; returns its oldest member."""
        oldest, younger = sorted((self.find(one), self.find(other)), key=self._age.__getitem__)
        self._parent[younger] = oldest
        return oldest


class Sets:
    """The same for the numbers below `count`, where many are asked about at a time: all labels are always flat."""

    def __init__(self, count: int) -> None:
        self._label = np.arange(count, dtype=np.int64)
        self._members: dict[int, list[int]] = {}

    def together(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Element by element: are the two in one set?"""
        return self._label[ones] == self._label[others]

    def join(self, one: int, other: int) -> bool:
        """Make both numbers' sets one; False if they are already. The smaller set moves: N log N moves in all."""
        small, large = int(self._label[one]), int(self._label[other])
        if small == large:
            return False
        if len(self._members.get(small, (small,))) > len(self._members.get(large, (large,))):
            small, large = large, small
        moved = self._members.pop(small, [small])
        self._label[moved] = large
        self._members.setdefault(large, [large]).extend(moved)
        return True
