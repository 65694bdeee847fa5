"""The candidate against each rival, picture by picture: paired differences with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_assets.evaluation.corpus import Bools
from vlm_assets.evaluation.display import CIDER, METRICS
from vlm_assets.evaluation.resampling import pick
from vlm_assets.evaluation.scored import IntervalSettings, Scored, ScoredSystems
from vlm_assets.evaluation.scores import bleu_differences
from vlm_assets.evaluation.significance import Difference, paired_difference
from vlm_assets.evaluation.systems import CANDIDATE

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import EvalConfig


def differences(scored: ScoredSystems, config: EvalConfig) -> Iterator[dict[str, Any]]:
    """Candidate minus each rival on every split that both captioned, paired by picture."""
    rivals = [key for key in scored if key != CANDIDATE]
    for rival, split in product(rivals, scored[CANDIDATE]):
        if split not in scored[rival]:
            continue
        found = split_differences(scored[CANDIDATE][split], scored[rival][split], config)
        for metric in METRICS:
            if metric.key in found:
                yield {"against": rival, "split": split, "metric": metric.key, **asdict(found[metric.key])}


def split_differences(ours: Scored, theirs: Scored, config: EvalConfig) -> dict[str, Difference]:
    """Ours minus theirs by metric, for those that both have: means of pictures, and BLEU of whole resamples.

    Of the pictures that either has trained on none counts; without any other there is no difference.
    """
    fair = ours.fair & theirs.fair
    if not fair.any():
        return {}

    def settings(rows: Bools) -> IntervalSettings:
        return {"clusters": pick(ours.clusters, rows), "resamples": config.resamples, "seed": config.seed}

    found = bleu_differences(ours.bleu_statistics[fair], theirs.bleu_statistics[fair], **settings(fair))
    for key, values in ours.items.items():
        rows = fair & ~np.isnan(values)  # the same in both: what is declared is the picture's
        if key in theirs.items and rows.any():
            found[key] = paired_difference(values[rows], theirs.items[key][rows], **settings(rows))
    return {key: _within_range(row) if key != CIDER.key else row for key, row in found.items()}


def _within_range(share: Difference) -> Difference:
    """A difference of shares cannot be beyond one, whatever an interval says."""
    return replace(share, low=max(share.low, -1.0), high=min(share.high, 1.0))
