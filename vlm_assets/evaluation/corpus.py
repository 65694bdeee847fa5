"""Candidates with their references, and the counts of their n-grams as arrays: what BLEU and CIDEr are made of.

Whole corpora are counted at once, by sorting: a dictionary per caption would cost ten times as much.
"""

from collections import defaultdict
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
Bools: TypeAlias = NDArray[np.bool_]

ORDER = 4  # the longest n-gram
WORD_BITS = 64


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
class Ngrams:
    """The n-grams of one order: of each candidate, of each reference, and of each candidate's references together.

    `pooled` numbers captions as `candidates` does; its counts are the largest that any one reference has.
    """

    candidates: NgramCounts
    references: NgramCounts
    pooled: NgramCounts


@dataclass(frozen=True)
class Corpus:
    """N candidates and their R references in a row: reference r belongs to candidate `item[r]`."""

    candidate_length: Ints  # (N,) tokens
    reference_length: Ints  # (R,)
    item: Ints  # (R,) ascending, every candidate at least once
    first: Ints  # (N,) a candidate's first reference
    ngrams: tuple[Ngrams, ...]  # per order

    @property
    def size(self) -> int:
        """How many candidates."""
        return len(self.candidate_length)


@dataclass(frozen=True)
class Numbered:
    """Captions as numbers: equal words have equal ones, in 0..kinds-1."""

    words: Ints  # (T,) of all captions in a row
    length: Ints  # (C,) words of each caption
    vocabulary: tuple[str, ...]  # the word of each number

    @property
    def kinds(self) -> int:
        """How many different words there are."""
        return len(self.vocabulary)


def make_corpus(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Corpus:
    """Count the n-grams of N tokenized candidates and of their references (at least one each); else CorpusError."""
    check_tokens(candidates, references)
    captions = list(chain(candidates, chain.from_iterable(references)))
    numbered = number_words(captions)
    if any("\xa0" in word for word in numbered.vocabulary):
        numbered = number_words([_words(tokens) for tokens in captions])
    item, first = place_references(references)
    cut = len(candidates)
    counted = (counts.split(cut) for counts in _count_ngrams(numbered))
    return Corpus(
        candidate_length=numbered.length[:cut],
        reference_length=numbered.length[cut:],
        item=item,
        first=first,
        ngrams=tuple(Ngrams(mine, theirs, _pool(theirs, item)) for mine, theirs in counted),
    )


def check_tokens(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Raise CorpusError unless there are tokenized candidates, with one or more tokenized references for each.

    A text in place of tokens would be scored letter by letter, and well: two texts of one language share their letters.
    """
    check_corpus(candidates, references)
    captions = chain(candidates, chain.from_iterable(references))
    text = next((caption for caption in captions if isinstance(caption, str)), None)
    if text is not None:
        raise CorpusError(
            f"{text!r} is a text where tokens belong. Give `tokenize([...])` of candidates and of each list of "
            "references, or score texts with `coco_scores`."
        )


def check_corpus(candidates: Sequence[object], references: Sequence[Sequence[object]]) -> None:
    """Raise CorpusError unless there is a candidate, and one or more references for each, in a list of its own."""
    if isinstance(candidates, str) or isinstance(references, str):
        raise CorpusError("Candidates and references are one text; give a list of candidates and one list for each.")
    if not len(candidates):
        raise CorpusError("There are no captions to score; give at least one candidate with its references.")
    if len(candidates) != len(references):
        raise CorpusError(
            f"{len(candidates):,} candidates but {len(references):,} lists of references; give one list per candidate."
        )
    text = next((texts for texts in references if isinstance(texts, str)), None)
    if text is not None:
        raise CorpusError(f"{text!r} is a text where a list of references belongs; give one list per candidate.")
    bare = next((number for number, texts in enumerate(references) if not len(texts)), None)
    if bare is not None:
        raise CorpusError(f"Candidate {bare} has no reference; every candidate needs one or more. Leave it out.")


def _words(tokens: Tokens) -> Tokens:
    """Tokens split at the no-break spaces inside ("2 1/2"): so the reference does for BLEU and CIDEr, not for ROUGE."""
    text = " ".join(tokens)
    return text.split() if "\xa0" in text else tokens


def number_words(captions: Sequence[Tokens]) -> Numbered:
    """Write the captions as numbers, in the order of each word's first appearance."""
    length = np.fromiter(map(len, captions), np.int64, len(captions))
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    words = np.fromiter(map(numbers.__getitem__, chain.from_iterable(captions)), np.int64, int(length.sum()))
    return Numbered(words, length, tuple(numbers))


def place_references(references: Sequence[Sequence[Tokens]]) -> tuple[Ints, Ints]:
    """(R,) the candidate of each reference, and (N,) the first reference of each candidate."""
    per_item = np.fromiter(map(len, references), np.int64, len(references))
    return np.repeat(np.arange(len(references)), per_item), np.cumsum(per_item) - per_item


def _count_ngrams(captions: Numbered) -> list[NgramCounts]:
    """One entry per order 1..4. An n-gram's number is made from that of its first n-1 words and of its last word."""
    words, length = captions.words, captions.length
    caption = np.repeat(np.arange(len(length)), length)
    left = np.repeat(np.cumsum(length), length) - np.arange(len(words))  # words from here to the caption's end
    start, ngram, kinds = np.arange(len(words)), words, captions.kinds
    counts = [_count(caption, ngram, kinds)]
    for order in range(2, ORDER + 1):
        fits = left[start] >= order
        start, ngram = start[fits], ngram[fits]
        ngram, kinds = _renumber(pack(ngram, words[start + order - 1], captions.kinds))
        counts.append(_count(caption[start], ngram, kinds))
    return counts


def _renumber(keys: Ints) -> tuple[Ints, int]:
    """The rank of each key among the different ones, and how many those are."""
    places = len(keys)
    if int(keys.max(initial=0)).bit_length() + places.bit_length() < WORD_BITS:  # five times as fast as argsort
        ranked, order = unpack(np.sort(pack(keys, np.arange(places), places)), places)
    else:
        order = np.argsort(keys)
        ranked = keys[order]
    first = first_of_run(ranked)
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[order] = np.cumsum(first) - 1
    return ranks, int(first.sum())


def _count(caption: Ints, ngram: Ints, kinds: int) -> NgramCounts:
    keys = np.sort(pack(caption, ngram, kinds))
    start = np.flatnonzero(first_of_run(keys))
    count = np.empty_like(start)
    np.subtract(start[1:], start[:-1], out=count[:-1])
    count[-1:] = len(keys) - start[-1:]
    return NgramCounts(*unpack(keys[start], kinds), count, kinds)


def _pool(theirs: NgramCounts, item: Ints) -> NgramCounts:
    """Per candidate the largest count of each n-gram in any one of its references."""
    most = int(theirs.count.max(initial=0)) + 1
    ranked = np.sort(pack(pack(item[theirs.caption], theirs.ngram, theirs.kinds), theirs.count, most))
    keys, count = unpack(ranked, most)
    last = np.append(first_of_run(keys)[1:], np.ones(min(len(keys), 1), dtype=bool))
    return NgramCounts(*unpack(keys[last], theirs.kinds), count[last], theirs.kinds)


def pack(first: Ints, second: Ints, kinds: int) -> Ints:
    """Pairs of numbers as single ones that sort alike; `second` is in 0..kinds-1. `unpack` is the inverse."""
    keys = first << kinds.bit_length()
    keys |= second  # in place, as below: on arrays of millions a fresh page costs more than the arithmetic
    return keys


def unpack(keys: Ints, kinds: int) -> tuple[Ints, Ints]:
    """The pairs that `pack` made into keys, which are overwritten."""
    bits = kinds.bit_length()
    second = keys & ((1 << bits) - 1)
    keys >>= bits
    return keys, second


def first_of_run(values: Ints) -> Bools:
    """(M,) whether a sorted value differs from the one before."""
    first = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return first


def look_up(counts: NgramCounts, caption: Ints, ngram: Ints) -> Ints:
    """The count of each (caption, n-gram) pair, 0 where there is none."""
    if not len(counts.count):
        return np.zeros(len(caption), dtype=np.int64)
    keys, wanted = pack(counts.caption, counts.ngram, counts.kinds), pack(caption, ngram, counts.kinds)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, counts.count[place], 0)


def sum_by(caption: Ints, values: NDArray[Any], captions: int) -> Floats:
    """(captions,) the sum of `values` (M,) that belong to each caption, 0 where none do."""
    return np.bincount(caption, weights=values, minlength=captions).astype(np.float64)  # of nothing it is of integers
