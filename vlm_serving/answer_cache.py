"""Captions of pictures that were asked for before: the same file, model and options have the same answer."""

from collections import OrderedDict
from collections.abc import Hashable

from vlm_serving.captioner import Caption


class AnswerCache:
    """The `size` captions that were asked for last; 0 keeps none. Used from one event loop."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Caption] = OrderedDict()

    def get(self, key: Hashable) -> Caption | None:
        """The caption kept for `key`: model version, options and sha256 of the picture's file."""
        caption = self._kept.get(key)
        if caption is not None:
            self._kept.move_to_end(key)
        return caption

    def put(self, key: Hashable, caption: Caption) -> None:
        """Keep a caption; the one that nobody asked for longest goes."""
        self._kept[key] = caption
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
