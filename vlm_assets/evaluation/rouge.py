"""ROUGE-L (Lin 2004): the longest common subsequence of words, in the arithmetic of the COCO caption evaluation."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_assets.evaluation.corpus import Floats, Tokens, check_corpus

BETA = 1.2  # recall weighs BETA squared as much as precision


@dataclass(frozen=True)
class RougeResult:
    """ROUGE-L of each caption, 0..1, and their mean."""

    corpus: float
    items: Floats  # (N,)


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> RougeResult:
    """ROUGE-L of N tokenized candidates: F-measure of the best precision and the best recall over the references.

    The two may come from different references. Equal to `pycocoevalcap.rouge.rouge.Rouge`. Raises CorpusError.
    """
    check_corpus(candidates, references)
    items = np.array([_score(mine, texts) for mine, texts in zip(candidates, references, strict=True)])
    return RougeResult(float(items.mean()), items)


def _score(candidate: Tokens, references: Sequence[Tokens]) -> float:
    mine = candidate or [""]  # the reference splits "" into one empty word, so that empty equals empty
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(mine):
        places[word] |= 1 << place
    common = [_longest_common(places, len(mine), texts or [""]) for texts in references]
    precision = max(common) / len(mine)
    recall = max(length / max(len(texts), 1) for length, texts in zip(common, references, strict=True))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision else 0.0


def _longest_common(places: dict[str, int], length: int, words: Tokens) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004): one integer is one row of the table.

    `places[word]` has a bit for each place of the candidate (of `length` words) where the word stands.
    """
    full = (1 << length) - 1
    row = full
    for word in words:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return length - row.bit_count()
