"""The report's tables of differences: one per split, a row per metric, a column per rival."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlm_assets.evaluation.display import CIDER, EXACT, METRICS, Metric, counted

TAGS = {"good": "better", "bad": "worse", "open": "undecided", "same": "same"}
ON_OTHER_SPLITS = (CIDER, EXACT)


def tone(difference: Mapping[str, Any]) -> str:
    """`good` if the whole interval of a difference is above 0, `bad` if below, `same` if it is 0, else `open`."""
    if difference["low"] > 0:
        return "good"
    if difference["low"] == difference["value"] == difference["high"] == 0:
        return "same"
    return "bad" if difference["high"] < 0 else "open"


def difference_tables(scores: Mapping[str, Any], headline: str) -> dict[str, dict[str, Any]]:
    """By split, the headline with all metrics, the others with two: rivals as columns, metrics as rows of cells."""
    splits = dict.fromkeys(row["split"] for row in scores["differences"])
    return {split: _table(scores, split, METRICS if split == headline else ON_OTHER_SPLITS) for split in splits}


def _table(scores: Mapping[str, Any], split: str, metrics: Sequence[Metric]) -> dict[str, Any]:
    rows = [row for row in scores["differences"] if row["split"] == split]
    rivals = list(dict.fromkeys(row["against"] for row in rows))
    found = {(row["against"], row["metric"]): row for row in rows}
    return {
        "split": split,
        "rivals": [_rival(rival, [row for row in rows if row["against"] == rival], scores, split) for rival in rivals],
        "rows": [
            {"metric": metric, "cells": [_cell(found.get((rival, metric.key))) for rival in rivals]}
            for metric in metrics
            if any((rival, metric.key) in found for rival in rivals)
        ],
    }


def _rival(key: str, rows: Sequence[Mapping[str, Any]], scores: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Its label, and on how many pictures it is compared: on most for one metric, on fewer for slots."""
    left_out = scores["systems"][key]["splits"][split]["left_out"]
    most = max(rows, key=lambda row: row["n"])
    told = counted(most) + (f"; {left_out} that trained it are left out" if left_out else "")
    return {"label": scores["systems"][key]["label"], "counted": told}


def _cell(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    way = tone(row)
    return {**row, "tone": way, "tag": TAGS[way], "counted": counted(row)}
