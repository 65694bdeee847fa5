"""BLEU-1 to BLEU-4 (Papineni et al. 2002, ACL), in the arithmetic of the COCO caption evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlm_assets.evaluation.corpus import ORDER, Corpus, Floats, Ngrams, Tokens, look_up, make_corpus, sum_by

# The reference's guards against division by zero; they show in a score's last digits, so they are kept.
TINY = 1e-15
SMALL = 1e-9


@dataclass(frozen=True)
class BleuResult:
    """BLEU-1..4 of the whole corpus and of each caption on its own, 0..1. The corpus is not the captions' mean.

    `statistics` (N, 10) are the summable counts behind them; see `bleu_from_sums`. `notes` say per order when its
    number cannot mean anything; else "".
    """

    corpus: tuple[float, float, float, float]
    items: Floats  # (N, 4)
    statistics: Floats  # (N, 10)
    notes: tuple[str, ...] = ("",) * ORDER


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> BleuResult:
    """BLEU of N tokenized candidates against one or more references each; the closest reference length counts.

    Equal to `pycocoevalcap.bleu.bleu.Bleu(4)`. Raises CorpusError.
    """
    return bleu_of(make_corpus(candidates, references))


def bleu_of(corpus: Corpus) -> BleuResult:
    """`bleu` on n-grams that are already counted."""
    guessed = [np.maximum(corpus.candidate_length - order, 0) for order in range(ORDER)]
    correct = [_correct(ngrams, corpus.size) for ngrams in corpus.ngrams]
    columns = [corpus.candidate_length, _closest_length(corpus), *guessed, *correct]
    statistics = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    one, two, three, four = bleu_from_sums(statistics.sum(axis=0)).tolist()
    return BleuResult((one, two, three, four), bleu_from_sums(statistics), statistics, _notes(corpus))


def _notes(corpus: Corpus) -> tuple[str, ...]:
    longest = int(corpus.reference_length.max())
    return tuple(
        f"BLEU-{order} says nothing here: no reference has {order} words, so that no caption can share such a run."
        if longest < order
        else ""
        for order in range(1, ORDER + 1)
    )


def bleu_from_sums(sums: Floats) -> Floats:
    """BLEU-1..4 (..., 4) from summed statistics (..., 10): candidate and reference length, 4 guessed, 4 correct."""
    length, reference = sums[..., :1], sums[..., 1:2]
    guessed, correct = sums[..., 2 : 2 + ORDER], sums[..., 2 + ORDER :]
    precision = np.cumprod((correct + TINY) / (guessed + SMALL), axis=-1) ** (1 / np.arange(1, ORDER + 1))
    ratio = (length + TINY) / (reference + SMALL)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))


def _correct(ngrams: Ngrams, candidates: int) -> Floats:
    """(N,) n-grams of each candidate that a reference has too, at most as often as the reference with the most."""
    mine = ngrams.candidates
    found = np.minimum(mine.count, look_up(ngrams.pooled, mine.caption, mine.ngram))
    return sum_by(mine.caption, found, candidates)


def _closest_length(corpus: Corpus) -> Floats:
    """(N,) the reference length closest to the candidate's; of two equally close ones the shorter."""
    distance = np.abs(corpus.reference_length - corpus.candidate_length[corpus.item])
    scale = int(corpus.reference_length.max()) + 1
    closest = np.minimum.reduceat(distance * scale + corpus.reference_length, corpus.first) % scale
    return closest.astype(np.float64)
