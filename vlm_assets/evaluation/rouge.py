"""ROUGE-L (Lin 2004): the longest common subsequence of words, in the arithmetic of the COCO caption evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlm_assets.evaluation.corpus import (
    WORD_BITS,
    Floats,
    Ints,
    Numbered,
    Tokens,
    check_tokens,
    first_of_run,
    number_words,
    pack,
    place_references,
)

NO_WORDS = "ROUGE-L says nothing here: no reference has a word, so that only an empty caption can match."
BETA = 1.2  # recall weighs BETA squared as much as precision
Bits: TypeAlias = NDArray[Any]  # uint64, or Python's integers where a candidate has more than 64 words


@dataclass(frozen=True)
class RougeResult:
    """ROUGE-L of each caption, 0..1, and their mean; `note` says when that number cannot mean anything."""

    corpus: float
    items: Floats  # (N,)
    note: str = ""


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> RougeResult:
    """ROUGE-L of N tokenized candidates: F-measure of the best precision and the best recall over the references.

    The two may come from different references. Equal to `pycocoevalcap.rouge.rouge.Rouge`. Raises CorpusError.
    """
    check_tokens(candidates, references)
    # the reference splits "" into one empty word, so that empty equals empty
    numbered = number_words([tokens or ("",) for tokens in chain(candidates, chain.from_iterable(references))])
    item, first = place_references(references)
    length = numbered.length
    common = _longest_common(numbered, item)  # (R,)
    precision = np.maximum.reduceat(common, first) / length[: len(candidates)]
    recall = np.maximum.reduceat(common / length[len(candidates) :], first)
    weighted = (1 + BETA**2) * precision * recall
    items = np.divide(weighted, recall + BETA**2 * precision, out=np.zeros_like(weighted), where=precision > 0)
    wordless = not any(map(len, chain.from_iterable(references)))
    return RougeResult(float(items.mean()), items, NO_WORDS if wordless else "")


def _longest_common(captions: Numbered, item: Ints) -> Ints:
    """(R,) words of the longest common subsequence of each reference and its candidate, `item[r]`.

    Bit-parallel (Hyyrö 2004): an integer is one row of the table, a bit of it one word of the candidate. Every
    reference goes on by one word at a time.
    """
    candidates = len(captions.length) - len(item)
    mine, theirs = captions.length[:candidates][item], captions.length[candidates:]
    bits = np.dtype(np.uint64 if mine.max() <= WORD_BITS else object)
    matches, start = _matches(captions, item, bits), np.cumsum(theirs) - theirs
    full = _powers_of_two(mine, bits) - 1  # a bit for each word of the candidate
    row, going = full.copy(), np.arange(len(item))
    for word in range(int(theirs.max())):
        going = going[theirs[going] > word]
        before = row[going]
        matched = before & matches[start[going] + word]
        row[going] = (before + matched) | (before - matched)  # what overflows is beyond the candidate's words
    return mine - np.bitwise_count(row & full).astype(np.int64)


def _matches(captions: Numbered, item: Ints, bits: np.dtype[Any]) -> Bits:
    """For each word of the references, all in a row: a bit for each place of the candidate where the word stands."""
    candidates = len(captions.length) - len(item)
    owner = np.repeat(np.concatenate([np.arange(candidates), item]), captions.length)
    keys = pack(owner, captions.words, captions.kinds)
    length = captions.length[:candidates]
    cut = int(length.sum())
    place = np.arange(cut) - np.repeat(np.cumsum(length) - length, length)
    order = np.argsort(keys[:cut])
    known = keys[:cut][order]
    first = np.flatnonzero(first_of_run(known))
    places = np.bitwise_or.reduceat(_powers_of_two(place[order], bits), first)
    found = np.minimum(np.searchsorted(known[first], keys[cut:]), len(first) - 1)
    return np.where(known[first][found] == keys[cut:], places[found], 0)


def _powers_of_two(exponent: Ints, bits: np.dtype[Any]) -> Bits:
    return np.left_shift(np.ones(len(exponent), dtype=bits), exponent.astype(bits))
