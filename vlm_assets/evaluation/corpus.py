"""Candidates with their references, and the counts of their n-grams as arrays: what BLEU and CIDEr are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlm_assets.errors import CorpusError

Tokens: TypeAlias = Sequence[str]
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

ORDER = 4  # the longest n-gram


@dataclass(frozen=True)
class NgramCounts:
    """How often each n-gram of one order stands in each caption; sorted by caption, then n-gram. Arrays of shape (M,).

    `ngram` is a number in 0..kinds-1 that means the same n-gram in every caption.
    """

    caption: Ints
    ngram: Ints
    count: Ints
    kinds: int

    def split(self, captions: int) -> tuple["NgramCounts", "NgramCounts"]:
        """The first `captions` captions, and the others, numbered from 0 again."""
        cut = int(np.searchsorted(self.caption, captions))
        first = NgramCounts(self.caption[:cut], self.ngram[:cut], self.count[:cut], self.kinds)
        return first, NgramCounts(self.caption[cut:] - captions, self.ngram[cut:], self.count[cut:], self.kinds)


@dataclass(frozen=True)
class Corpus:
    """N candidates and their R references in a row: reference r belongs to candidate `item[r]`."""

    candidate_length: Ints  # (N,) tokens
    reference_length: Ints  # (R,)
    item: Ints  # (R,) ascending, every candidate at least once
    first: Ints  # (N,) a candidate's first reference
    ngrams: tuple[tuple[NgramCounts, NgramCounts], ...]  # per order: in the candidates, in the references

    @property
    def size(self) -> int:
        """How many candidates."""
        return len(self.candidate_length)


def make_corpus(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Corpus:
    """Count the n-grams of N tokenized candidates and of their references (at least one each); else CorpusError."""
    check_corpus(candidates, references)
    per_item = np.array([len(texts) for texts in references], dtype=np.int64)
    captions = [*candidates, *chain.from_iterable(references)]
    length = np.array([len(tokens) for tokens in captions], dtype=np.int64)
    return Corpus(
        candidate_length=length[: len(candidates)],
        reference_length=length[len(candidates) :],
        item=np.repeat(np.arange(len(candidates)), per_item),
        first=np.cumsum(per_item) - per_item,
        ngrams=tuple(counts.split(len(candidates)) for counts in _count_ngrams(captions, length)),
    )


def check_corpus(candidates: Sequence[object], references: Sequence[Sequence[object]]) -> None:
    """Raise CorpusError unless there is a candidate, and one or more references for each."""
    if not len(candidates):
        raise CorpusError("There are no captions to score; give at least one candidate with its references.")
    if len(candidates) != len(references):
        raise CorpusError(
            f"{len(candidates):,} candidates but {len(references):,} lists of references; give one list per candidate."
        )
    bare = next((number for number, texts in enumerate(references) if not len(texts)), None)
    if bare is not None:
        raise CorpusError(f"Candidate {bare} has no reference; every candidate needs one or more. Leave it out.")


def _count_ngrams(captions: Sequence[Tokens], length: Ints) -> list[NgramCounts]:
    """One entry per order 1..4. An n-gram's number is made from that of its first n-1 words and of its last word."""
    numbers: dict[str, int] = {}
    words = np.fromiter(
        (numbers.setdefault(word, len(numbers)) for word in chain.from_iterable(captions)), np.int64, int(length.sum())
    )
    caption = np.repeat(np.arange(len(captions)), length)
    left = np.repeat(np.cumsum(length), length) - np.arange(len(words))  # words from here to the caption's end
    start, ngram, kinds = np.arange(len(words)), words, len(numbers)
    counts = [_count(caption, ngram, kinds)]
    for order in range(2, ORDER + 1):
        fits = left[start] >= order
        start, ngram = start[fits], ngram[fits]
        found, ngram = np.unique(ngram * len(numbers) + words[start + order - 1], return_inverse=True)
        kinds = len(found)
        counts.append(_count(caption[start], ngram, kinds))
    return counts


def _count(caption: Ints, ngram: Ints, kinds: int) -> NgramCounts:
    keys, count = np.unique(caption * kinds + ngram, return_counts=True)
    return NgramCounts(keys // max(kinds, 1), keys % max(kinds, 1), count, kinds)


def look_up(counts: NgramCounts, caption: Ints, ngram: Ints) -> Ints:
    """The count of each (caption, n-gram) pair, 0 where there is none."""
    if not len(counts.count):
        return np.zeros(len(caption), dtype=np.int64)
    keys = counts.caption * counts.kinds + counts.ngram
    wanted = caption * counts.kinds + ngram
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, counts.count[place], 0)


def sum_by(caption: Ints, values: NDArray[Any], captions: int) -> Floats:
    """(captions,) the sum of `values` (M,) that belong to each caption, 0 where none do."""
    return np.bincount(caption, weights=values, minlength=captions).astype(np.float64)  # of nothing it is of integers
