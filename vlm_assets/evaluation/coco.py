"""The COCO caption evaluation without its Java: from texts to BLEU, ROUGE-L and CIDEr-D.

Needs NumPy only: `from vlm_assets.evaluation.coco import coco_scores`.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice

from vlm_assets.evaluation.bleu import BleuResult, bleu_of
from vlm_assets.evaluation.cider import CiderResult, cider_of
from vlm_assets.evaluation.corpus import check_corpus, make_corpus
from vlm_assets.evaluation.rouge import RougeResult, rouge_l
from vlm_assets.evaluation.tokenizer import tokenize


@dataclass(frozen=True)
class CocoScores:
    """The three metrics, of the corpus and per caption."""

    bleu: BleuResult
    rouge_l: RougeResult
    cider: CiderResult

    @property
    def notes(self) -> Mapping[str, str]:
        """By metric (bleu_1 .. bleu_4, rouge_l, cider) why its number cannot mean anything; those that can are not in.

        A corpus of one picture is such a case, or references of fewer than four words.
        """
        notes = {f"bleu_{order}": note for order, note in enumerate(self.bleu.notes, start=1)}
        notes |= {"rouge_l": self.rouge_l.note, "cider": self.cider.note}
        return {metric: note for metric, note in notes.items() if note}


def coco_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CocoScores:
    """Score N captions against one or more references each.

    Equal to `pycocoevalcap` within 1e-9, per corpus and per caption. Raises CorpusError (no captions, different
    numbers, a caption without reference).
    """
    check_corpus(candidates, references)
    with collector_paused():
        tokens = iter(tokenize(chain(candidates, chain.from_iterable(references))))
        mine = list(islice(tokens, len(candidates)))
        theirs = [list(islice(tokens, len(texts))) for texts in references]
        with ThreadPoolExecutor(1) as beside:  # most of it is NumPy's, which lets another thread work
            rouge = beside.submit(rouge_l, mine, theirs)
            corpus = make_corpus(mine, theirs)
            bleu, cider = bleu_of(corpus), cider_of(corpus)
            return CocoScores(bleu, rouge.result(), cider)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Millions of small lists without a cycle among them: looking for cycles would cost a seventh of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
