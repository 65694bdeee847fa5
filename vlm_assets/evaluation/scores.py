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
from vlm_assets.evaluation.resampling import Labels
from vlm_assets.evaluation.significance import Difference, Estimate, bootstrap_mean, differences, estimates

BLEUS = tuple(f"bleu_{order}" for order in range(1, ORDER + 1))


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
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    clusters: Labels = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score N captions against one or more references each, as the COCO caption evaluation does.

    Intervals: 95 % percentile bootstrap over pictures, or over their `clusters`: of each picture what it belongs to.
    BLEU is recomputed on each resample from its summed n-gram counts; ROUGE-L, CIDEr and exact match are means of
    per-picture scores, with CIDEr's document frequencies held at those of the whole corpus. distinct_share describes
    this very set (repeats in a resample would bias it): no interval.
    Raises CorpusError (no captions, different numbers, a caption without reference), ConfigError (resamples < 1).
    """
    found = coco_scores(candidates, references)
    items = {
        "rouge_l": found.rouge_l.items,
        "cider": found.cider.items,
        "exact_match": exact_matches(candidates, references),
    }
    metrics = dict(
        zip(
            BLEUS,
            estimates(found.bleu.statistics, bleu_from_sums, clusters=clusters, resamples=resamples, seed=seed),
            strict=True,
        )
    )
    favourite = _favourite(candidates)
    for name, values in {**items, "most_frequent_share": favourite}.items():
        metrics[name] = bootstrap_mean(values, clusters=clusters, resamples=resamples, seed=seed)
    distinct = len({plain(text) for text in candidates}) / len(candidates)
    metrics["distinct_share"] = Estimate(distinct, distinct, distinct, len(candidates), metrics["cider"].clusters)
    return Scores(metrics, items, dict(found.notes), found.bleu.statistics)


def bleu_differences(
    ours: Floats, theirs: Floats, *, clusters: Labels = None, resamples: int = 1000, seed: int = 0
) -> dict[str, Difference]:
    """bleu_1 .. bleu_4 of one system minus another's on the same N pictures, from both systems' statistics (N, 10).

    Both are recomputed on the same resamples of pictures: the interval is a paired one. Raises CorpusError.
    """
    if len(ours) != len(theirs):
        raise CorpusError(f"{len(ours):,} pictures against {len(theirs):,}; a paired difference needs the same ones.")
    width = ours.shape[1]

    def gain(sums: Floats) -> Floats:
        return bleu_from_sums(sums[..., :width]) - bleu_from_sums(sums[..., width:])

    found = differences(np.hstack([ours, theirs]), gain, clusters=clusters, resamples=resamples, seed=seed)
    return dict(zip(BLEUS, found, strict=True))


def exact_matches(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """(N,) 1 where the caption equals a reference but for case, blanks and the final full stop; else 0."""
    pairs = zip(candidates, references, strict=True)
    return np.array([plain(text) in {plain(other) for other in texts} for text, texts in pairs], dtype=np.float64)


def _favourite(candidates: Sequence[str]) -> list[bool]:
    """Which captions are the commonest one."""
    texts = [plain(text) for text in candidates]
    favourite = Counter(texts).most_common(1)[0][0]
    return [text == favourite for text in texts]
