"""Every caption metric of one system on one split, with intervals: what reports, gates and logs read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from vlm_assets.errors import CorpusError
from vlm_assets.evaluation.bleu import bleu_from_sums
from vlm_assets.evaluation.coco import coco_scores
from vlm_assets.evaluation.collapse import plain
from vlm_assets.evaluation.corpus import ORDER, Floats
from vlm_assets.evaluation.significance import (
    Difference,
    Estimate,
    bootstrap_mean,
    difference,
    estimate,
    resampled_sums,
)


@dataclass(frozen=True)
class Scores:
    """Metrics by name, and per picture those whose mean the metric is (BLEU has none: it is of a corpus).

    Names: bleu_1 .. bleu_4, rouge_l, exact_match (0..1), cider (0..10), distinct_share, most_frequent_share (0..1).
    """

    metrics: dict[str, Estimate]
    items: dict[str, Floats]  # (N,) each
    notes: dict[str, str] = field(default_factory=dict[str, str])  # by metric: why its number cannot mean anything
    bleu_statistics: Floats = field(default_factory=lambda: np.empty((0, 10)))  # (N, 10), see bleu.BleuResult

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "metrics": {name: asdict(found) for name, found in self.metrics.items()},
            "items": {name: values.tolist() for name, values in self.items.items()},
            "notes": self.notes,
            "bleu_statistics": self.bleu_statistics.tolist(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of to_json."""
        return cls(
            {name: Estimate(**found) for name, found in data["metrics"].items()},
            {name: np.asarray(values, dtype=np.float64) for name, values in data["items"].items()},
            dict(data["notes"]),
            np.asarray(data["bleu_statistics"], dtype=np.float64),
        )


def score_captions(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int = 1000, seed: int = 0
) -> Scores:
    """Score N captions against one or more references each, as the COCO caption evaluation does.

    Intervals: 95 % percentile bootstrap over pictures. BLEU is recomputed on each resample from its summed n-gram
    counts; ROUGE-L, CIDEr and exact match are means of per-picture scores, with CIDEr's word weights held at those of
    the whole corpus. distinct_share describes this very set (repeats in a resample would bias it): no interval.
    Raises CorpusError (no captions, different numbers, a caption without reference), ConfigError (resamples < 1).
    """
    found = coco_scores(candidates, references)
    items = {
        "rouge_l": found.rouge_l.items,
        "cider": found.cider.items,
        "exact_match": exact_matches(candidates, references),
    }
    metrics = _bleu_estimates(found.bleu.statistics, resamples, seed)
    metrics |= {name: bootstrap_mean(values, resamples=resamples, seed=seed) for name, values in items.items()}
    metrics |= _variety(candidates, resamples, seed)
    return Scores(metrics, items, dict(found.notes), found.bleu.statistics)


def bleu_differences(ours: Floats, theirs: Floats, *, resamples: int = 1000, seed: int = 0) -> dict[str, Difference]:
    """bleu_1 .. bleu_4 of one system minus another's on the same N pictures, from both systems' statistics (N, 10).

    Both are recomputed on the same resamples of pictures: the interval is a paired one. Raises CorpusError.
    """
    if len(ours) != len(theirs):
        raise CorpusError(f"{len(ours):,} pictures against {len(theirs):,}; a paired difference needs the same ones.")
    value = bleu_from_sums(ours.sum(axis=0)) - bleu_from_sums(theirs.sum(axis=0))  # (4,)
    mine, others = (bleu_from_sums(resampled_sums(rows, resamples, seed)) for rows in (ours, theirs))
    change = mine - others  # (resamples, 4)
    return {f"bleu_{order + 1}": difference(float(value[order]), change[:, order], len(ours)) for order in range(ORDER)}


def exact_matches(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """(N,) 1 where the caption equals a reference but for case, blanks and the final full stop; else 0."""
    pairs = zip(candidates, references, strict=True)
    return np.array([plain(text) in {plain(other) for other in texts} for text, texts in pairs], dtype=np.float64)


def _bleu_estimates(statistics: Floats, resamples: int, seed: int) -> dict[str, Estimate]:
    whole = bleu_from_sums(statistics.sum(axis=0))  # (4,)
    resampled = bleu_from_sums(resampled_sums(statistics, resamples, seed))  # (resamples, 4)
    return {
        f"bleu_{order + 1}": estimate(float(whole[order]), resampled[:, order], len(statistics))
        for order in range(ORDER)
    }


def _variety(candidates: Sequence[str], resamples: int, seed: int) -> dict[str, Estimate]:
    texts = [plain(text) for text in candidates]
    counts = Counter(texts)
    distinct = len(counts) / len(texts)
    favourite = counts.most_common(1)[0][0]
    return {
        "distinct_share": Estimate(distinct, distinct, distinct, len(texts)),
        "most_frequent_share": bootstrap_mean([text == favourite for text in texts], resamples=resamples, seed=seed),
    }
