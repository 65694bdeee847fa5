"""Signs that a captioner has stopped looking at its pictures; overlap metrics alone can hide them."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TypedDict

LOOP_TIMES = 3
LOOP_MAX_WORDS = 4


class Collapse(TypedDict):
    """Shares are of all captions, 0..1; lengths are in words."""

    distinct_share: float  # different captions / captions
    most_frequent_share: float
    most_frequent_caption: str
    empty_share: float
    looping_share: float  # a block of 1 to 4 words three times in a row
    novel_share: float  # captions that no training picture has
    mean_words: float
    max_words: int
    mean_reference_words: float
    most_frequent_reference_share: float  # pictures that share the commonest reference


def plain(caption: str) -> str:
    """Lower case, single spaces, no final full stop: how captions are compared for being the same."""
    return " ".join(caption.split()).rstrip(".").strip().lower()


def is_looping(caption: str) -> bool:
    """Whether a block of 1 to 4 words comes three times in a row."""
    words = plain(caption).split()
    return any(
        all(words[i : i + size] == words[i + k * size : i + (k + 1) * size] for k in range(1, LOOP_TIMES))
        for size in range(1, LOOP_MAX_WORDS + 1)
        for i in range(len(words) - LOOP_TIMES * size + 1)
    )


def collapse_measures(
    captions: Sequence[str], references: Sequence[Sequence[str]], training: Collection[str]
) -> Collapse:
    """Measure `captions` (at least one) against their references and a set of `plain` training captions."""
    spoken = [plain(caption) for caption in captions]
    lengths = [len(caption.split()) for caption in spoken]
    reference_lengths = [len(plain(text).split()) for texts in references for text in texts]
    commonest, times = Counter(spoken).most_common(1)[0]
    shared = Counter(text for texts in references for text in {plain(text) for text in texts})
    n = len(spoken)
    return Collapse(
        distinct_share=len(set(spoken)) / n,
        most_frequent_share=times / n,
        most_frequent_caption=commonest,
        empty_share=sum(not caption for caption in spoken) / n,
        looping_share=sum(is_looping(caption) for caption in spoken) / n,
        novel_share=sum(caption not in training for caption in spoken) / n,
        mean_words=sum(lengths) / n,
        max_words=max(lengths),
        most_frequent_reference_share=max(shared.values(), default=0) / n,
        mean_reference_words=sum(reference_lengths) / max(len(reference_lengths), 1),
    )
