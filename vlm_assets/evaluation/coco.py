"""The COCO caption evaluation without its Java: from texts to BLEU, ROUGE-L and CIDEr-D.

Needs NumPy only: `from vlm_assets.evaluation.coco import coco_scores`.
"""

from collections.abc import Mapping, Sequence
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
    tokens = iter(tokenize(chain(candidates, chain.from_iterable(references))))
    mine = list(islice(tokens, len(candidates)))
    theirs = [list(islice(tokens, len(texts))) for texts in references]
    corpus = make_corpus(mine, theirs)
    return CocoScores(bleu_of(corpus), rouge_l(mine, theirs), cider_of(corpus))
