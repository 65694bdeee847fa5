"""The champion now against itself at its release: other pictures, or other captions of the same ones.

Figures of two test sets do not compare as they stand: CIDEr weighs words by the references at hand, and each set is a
draw. So both are scored together, with one set of weights, and resampled together: what both sets hold cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_assets.evaluation.coco import coco_scores
from vlm_assets.evaluation.corpus import Bools, Floats
from vlm_assets.evaluation.display import CIDER
from vlm_assets.evaluation.scores import exact_matches
from vlm_assets.evaluation.significance import differences

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import ChampionConfig
    from vlm_assets.evaluation.predict import CaptionTable


def change_since(now: CaptionTable, then: CaptionTable, config: ChampionConfig) -> dict[str, Any]:
    """By metric (cider, exact_match): `now`, `then`, and `value`, `low`, `high` of their difference, 95 %.

    Both tables hold what one model said: image_id, caption, references, cluster. `why_not` says why there is no
    comparison, "" if there is one.
    """
    fewest = min(len(set(table["cluster"].to_pylist())) for table in (now, then))
    if fewest < config.min_pictures:
        return no_comparison(
            f"{fewest} independent test pictures on one side, and min_pictures is {config.min_pictures}"
        )
    captions, references, clusters = (
        [*now[name].to_pylist(), *then[name].to_pylist()] for name in ("caption", "references", "cluster")
    )
    items = {
        "cider": coco_scores(captions, references).cider.items,
        "exact_match": exact_matches(captions, references),
    }
    is_now = np.arange(len(captions)) < now.num_rows
    same = set(now["image_id"].to_pylist()) & set(then["image_id"].to_pylist())
    return {
        "why_not": "",
        "pictures": {"now": now.num_rows, "then": then.num_rows, "both": len(same)},
        "metrics": {name: _compared(scores, is_now, clusters, config) for name, scores in items.items()},
    }


def no_comparison(why_not: str) -> dict[str, Any]:
    """What stands in the place of one."""
    return {"why_not": why_not, "pictures": {}, "metrics": {}}


def verdict(since: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether the champion holds, and a sentence why: it does not if its CIDEr is surely lower than at its release."""
    if since["why_not"]:
        return True, f"not compared with its release: {since['why_not']}"
    cider = since["metrics"]["cider"]
    figures = (
        f"{CIDER.text(cider['now'])} now, {CIDER.text(cider['then'])} then, "
        f"{CIDER.text(cider['value'], signed=True)} ({CIDER.interval(cider, signed=True)})"
    )
    holds = cider["high"] >= 0
    return holds, f"CIDEr is {'not surely' if holds else 'surely'} lower than at its release: {figures}"


def _compared(scores: Floats, is_now: Bools, clusters: list[str], config: ChampionConfig) -> dict[str, float]:
    """Of the scores (N,) of both times: their means, and the difference with its interval."""
    now, then = is_now.astype(np.float64), (~is_now).astype(np.float64)
    rows = np.stack([scores * now, now, scores * then, then], axis=1)  # (N, 4)
    [change] = differences(rows, _change, clusters=clusters, resamples=config.resamples, seed=config.seed)
    means = {"now": float(scores[is_now].mean()), "then": float(scores[~is_now].mean())}
    return {**means, "value": change.value, "low": change.low, "high": change.high}


def _change(sums: Floats) -> Floats:
    """(..., 1) from summed values and counts of now and then (..., 4)."""
    return sums[..., :1] / sums[..., 1:2] - sums[..., 2:3] / sums[..., 3:]
