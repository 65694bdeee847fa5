"""The words that a model has been taught: of traffic's captions, others are a sign that it guesses."""

import re
from collections.abc import Iterable
from pathlib import Path

from vlm_assets.data.tables import read_rows

WORD = re.compile(r"\w+(?:['’\-]\w+)*")


def words_of(caption: str) -> list[str]:
    """The words of a caption in order, in lower case and without punctuation."""
    return WORD.findall(caption.lower())


def taught_words(shards: Iterable[Path]) -> list[str]:
    """All words of the captions in some shard files, sorted."""
    return sorted(
        {
            word
            for shard in shards
            for row in read_rows(shard, ["captions"])
            for caption in row["captions"]
            for word in words_of(caption)
        }
    )
