"""CIDEr-D (Vedantam, Zitnick, Parikh 2015, CVPR): n-grams shared with the references, rare ones weighing more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_assets.evaluation.corpus import (
    ORDER,
    Corpus,
    Floats,
    NgramCounts,
    Ngrams,
    Tokens,
    look_up,
    make_corpus,
    sum_by,
)

SIGMA = 6.0  # words of length difference at which the length penalty is exp(-1/2)
SCALE = 10.0
WEIGHS = (
    "whatever the captions: it weighs words by how few pictures have them in their references, and here all have all"
)
ONE_PICTURE = f"CIDEr is 0 for a corpus of one picture, {WEIGHS}. Score two or more pictures together."
SAME_WORDS = f"CIDEr is 0 where all pictures have references of the same words, {WEIGHS}."
NO_WORDS = "CIDEr is 0 where no reference has a word, whatever the captions."


@dataclass(frozen=True)
class CiderResult:
    """CIDEr-D of each caption, 0..10, and their mean; `note` says when that number cannot mean anything."""

    corpus: float
    items: Floats  # (N,)
    note: str = ""


def cider(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> CiderResult:
    """CIDEr-D of N tokenized candidates against one or more references each, n-grams of 1 to 4 words.

    Words are weighed by log(N / pictures whose references have them): values depend on the corpus, and those of two
    corpora do not compare; a corpus of one picture, for one, always gets 0 (`note`). Equal to
    `pycocoevalcap.cider.cider.Cider`. Raises CorpusError.
    """
    return cider_of(make_corpus(candidates, references))


def cider_of(corpus: Corpus) -> CiderResult:
    """`cider` on n-grams that are already counted."""
    # The reference measures length in pairs of words here, so captions of none and of one word are equally long.
    pairs = np.maximum(corpus.reference_length - 1, 0) - np.maximum(corpus.candidate_length - 1, 0)[corpus.item]
    penalty = np.exp(-(pairs.astype(np.float64) ** 2) / (2 * SIGMA**2))  # (R,)
    likeness = sum((_likeness(ngrams, corpus) for ngrams in corpus.ngrams), np.zeros(len(corpus.item)))
    per_reference = np.add.reduceat(likeness * penalty / ORDER, corpus.first)  # (N,)
    items = SCALE * per_reference / np.bincount(corpus.item)
    return CiderResult(float(items.mean()), items, _note(corpus))


def _note(corpus: Corpus) -> str:
    pooled = [ngrams.pooled for ngrams in corpus.ngrams]
    if not len(pooled[0].ngram):
        return NO_WORDS
    if any(_weights(counts, corpus.size)[counts.ngram].any() for counts in pooled):
        return ""
    return ONE_PICTURE if corpus.size == 1 else SAME_WORDS


def _likeness(ngrams: Ngrams, corpus: Corpus) -> Floats:
    """(R,) clipped cosine between each reference and its candidate, for n-grams of one order."""
    mine, theirs = ngrams.candidates, ngrams.references
    weight = _weights(ngrams.pooled, corpus.size)
    its_weight = weight[theirs.ngram]  # (M,)
    value = theirs.count * its_weight
    shared = np.minimum(look_up(mine, corpus.item[theirs.caption], theirs.ngram) * its_weight, value) * value
    dot = sum_by(theirs.caption, shared, len(corpus.item))
    norms = _norms(theirs, weight, len(corpus.item)) * _norms(mine, weight, corpus.size)[corpus.item]
    return np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0)


def _weights(pooled: NgramCounts, pictures: int) -> Floats:
    """(kinds,) log(N / number of pictures whose references have the n-gram); as if one where none has."""
    frequency = np.bincount(pooled.ngram, minlength=pooled.kinds)
    return np.log(float(pictures)) - np.log(np.maximum(1.0, frequency))


def _norms(counts: NgramCounts, weight: Floats, captions: int) -> Floats:
    return np.sqrt(sum_by(counts.caption, (counts.count * weight[counts.ngram]) ** 2, captions))
