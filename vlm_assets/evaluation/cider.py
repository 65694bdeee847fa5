"""CIDEr-D (Vedantam, Zitnick, Parikh 2015, CVPR): n-grams shared with the references, rare ones weighing more."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_assets.evaluation.corpus import ORDER, Corpus, Floats, NgramCounts, Tokens, look_up, make_corpus, sum_by

SIGMA = 6.0  # words of length difference at which the length penalty is exp(-1/2)
SCALE = 10.0
ONE_PICTURE = (
    "CIDEr is 0 for a corpus of one picture, whatever the captions: it weighs words by how few pictures have them in "
    "their references, and here all have all. Score two or more pictures together."
)


@dataclass(frozen=True)
class CiderResult:
    """CIDEr-D of each caption, 0..10, and their mean; `note` says when that number cannot mean anything."""

    corpus: float
    items: Floats  # (N,)
    note: str = ""


def cider(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> CiderResult:
    """CIDEr-D of N tokenized candidates against one or more references each, n-grams of 1 to 4 words.

    Words are weighed by log(N / pictures whose references have them): values depend on the corpus, and those of two
    corpora do not compare; a corpus of one picture always gets 0 (`note`). Equal to
    `pycocoevalcap.cider.cider.Cider`. Raises CorpusError.
    """
    return cider_of(make_corpus(candidates, references))


def cider_of(corpus: Corpus) -> CiderResult:
    """`cider` on n-grams that are already counted."""
    # The reference measures length in pairs of words here, so captions of none and of one word are equally long.
    pairs = np.maximum(corpus.reference_length - 1, 0) - np.maximum(corpus.candidate_length - 1, 0)[corpus.item]
    penalty = np.exp(-(pairs.astype(np.float64) ** 2) / (2 * SIGMA**2))  # (R,)
    likeness = sum((_likeness(mine, theirs, corpus) for mine, theirs in corpus.ngrams), np.zeros(len(corpus.item)))
    per_reference = np.add.reduceat(likeness * penalty / ORDER, corpus.first)  # (N,)
    items = SCALE * per_reference / np.bincount(corpus.item)
    return CiderResult(float(items.mean()), items, ONE_PICTURE if corpus.size == 1 else "")


def _likeness(mine: NgramCounts, theirs: NgramCounts, corpus: Corpus) -> Floats:
    """(R,) clipped cosine between each reference and its candidate, for n-grams of one order."""
    weight = _weights(theirs, corpus)
    owner = corpus.item[theirs.caption]
    value = theirs.count * weight[theirs.ngram]
    shared = np.minimum(look_up(mine, owner, theirs.ngram) * weight[theirs.ngram], value) * value
    dot = sum_by(theirs.caption, shared, len(corpus.item))
    norms = _norms(theirs, weight, len(corpus.item)) * _norms(mine, weight, corpus.size)[corpus.item]
    return np.divide(dot, norms, out=np.zeros_like(dot), where=norms > 0)


def _weights(theirs: NgramCounts, corpus: Corpus) -> Floats:
    """(kinds,) log(N / number of pictures whose references have the n-gram); as if one where none has."""
    pictures = np.unique(corpus.item[theirs.caption] * theirs.kinds + theirs.ngram) % max(theirs.kinds, 1)
    frequency = np.bincount(pictures, minlength=theirs.kinds)
    return np.log(float(corpus.size)) - np.log(np.maximum(1.0, frequency))


def _norms(counts: NgramCounts, weight: Floats, captions: int) -> Floats:
    return np.sqrt(sum_by(counts.caption, (counts.count * weight[counts.ngram]) ** 2, captions))
