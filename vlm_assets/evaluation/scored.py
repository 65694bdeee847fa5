"""The scores of one system on one split, with all that comparisons and slices need of its pictures."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from vlm_assets.evaluation.corpus import Bools, Floats
from vlm_assets.evaluation.display import SLOTS, slot_metric
from vlm_assets.evaluation.pictures import Texts
from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.resampling import Labels
from vlm_assets.evaluation.scores import score_captions
from vlm_assets.evaluation.slots import Vocabulary, slot_accuracy, slot_vocabulary
from vlm_assets.evaluation.systems import System

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import MeasureConfig

Items = dict[str, Floats]  # by metric, one score per picture


class IntervalSettings(TypedDict):
    """What all intervals of a split have in common."""

    clusters: Labels
    resamples: int
    seed: int


@dataclass(frozen=True)
class Scored:
    """One system on one split: estimates as JSON, and the per-picture scores behind them.

    BLEU has no per-picture scores; those of a slot are NaN where the picture does not declare it. `fair` tells which
    pictures the system may be compared on: those that it did not train on, nor on others of their cluster.
    """

    metrics: dict[str, dict[str, Any]]
    items: Items
    clusters: list[str]
    fair: Bools
    notes: dict[str, str] = field(default_factory=dict[str, str])  # by metric: why its number cannot mean anything
    bleu_statistics: Floats = field(default_factory=lambda: np.empty((0, 10)))


ScoredSystems = dict[str, dict[str, Scored]]  # by system, by split


def score_everything(systems: Sequence[System], training: Texts, config: MeasureConfig) -> ScoredSystems:
    """Score every system on every split that it captioned."""
    tables = [table for system in systems for table in system.captions.values()]
    slots = [text for column in [training.slots, *(table["slots"].to_pylist() for table in tables)] for text in column]
    vocabulary = slot_vocabulary([json.loads(text) for text in dict.fromkeys(slots)])
    return {
        system.key: {
            name: score_split(table, vocabulary, config, system.trained_on) for name, table in system.captions.items()
        }
        for system in systems
    }


def score_split(
    table: CaptionTable, vocabulary: Vocabulary, config: MeasureConfig, trained_on: Collection[str] = ()
) -> Scored:
    """Caption metrics and, where the source declares slots, slot accuracy: of all slots together and of each.

    `vocabulary` holds the values of every split: a role known from training only is still a wrong role here.
    """
    captions: list[str] = table["caption"].to_pylist()
    clusters: list[str] = table["cluster"].to_pylist()
    placed = zip(table["image_id"].to_pylist(), clusters, strict=True)
    known = {cluster for name, cluster in placed if name in trained_on}
    settings: IntervalSettings = {"clusters": clusters, "resamples": config.resamples, "seed": config.seed}
    found = score_captions(captions, table["references"].to_pylist(), **settings)
    metrics = {name: asdict(estimate) for name, estimate in found.metrics.items()}
    for name, note in found.notes.items():
        metrics[name]["note"] = note
    items = dict(found.items)
    declared: list[list[dict[str, str]]] = [json.loads(text) for text in table["slots"].to_pylist()]
    if any(slots for row in declared for slots in row):
        slots = slot_accuracy(captions, declared, vocabulary=vocabulary, **settings)
        metrics[SLOTS.key] = asdict(slots.all_slots)
        items[SLOTS.key] = slots.all_items
        for name, estimate in slots.slots.items():
            metrics[slot_metric(name).key] = asdict(estimate)
            items[slot_metric(name).key] = slots.items[name]
    fair = np.array([cluster not in known for cluster in clusters])
    return Scored(metrics, items, clusters, fair, found.notes, found.bleu_statistics)
