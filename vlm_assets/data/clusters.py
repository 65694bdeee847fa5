"""Disjoint sets: what belongs together, directly or through others."""

from collections.abc import Hashable
from typing import Generic, TypeVar

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
