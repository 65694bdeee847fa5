"""From everybody's captions to scores.json: values with intervals, paired differences, slices, signs of collapse."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vlm_assets.contracts import digest
from vlm_assets.evaluation.collapse import collapse_measures, plain
from vlm_assets.evaluation.comparison import differences
from vlm_assets.evaluation.corpus import Ints
from vlm_assets.evaluation.pictures import Texts
from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.protocol import protocol
from vlm_assets.evaluation.resampling import pick
from vlm_assets.evaluation.scored import Scored, ScoredSystems
from vlm_assets.evaluation.significance import bootstrap_mean
from vlm_assets.evaluation.slices import all_slices
from vlm_assets.evaluation.systems import CANDIDATE, HEADLINE_SPLIT, IN_A_SENTENCE, LABELS, System

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import EvalConfig

SCORES_SCHEMA = 2


def scores_json(
    systems: Sequence[System],
    scored: ScoredSystems,
    training: Texts,
    config: EvalConfig,
) -> dict[str, Any]:
    """The machine-readable result, without what only the asset knows (lineage, attribution)."""
    known = {plain(text) for texts in training.captions for text in texts}
    candidate = next(system for system in systems if system.key == CANDIDATE)
    return {
        "schema": SCORES_SCHEMA,
        "headline_split": HEADLINE_SPLIT,
        "systems": {system.key: _system_json(system, scored[system.key], known) for system in systems},
        "splits": {name: _split_json(table) for name, table in candidate.captions.items()},
        "differences": list(differences(scored, config)),
        "slices": slice_scores(candidate.captions[HEADLINE_SPLIT], scored[CANDIDATE][HEADLINE_SPLIT], known, config),
        "protocol": protocol(config, candidate.generation),
    }


def slice_scores(
    table: CaptionTable, whole: Scored, known: Collection[str], config: EvalConfig
) -> list[dict[str, Any]]:
    """Every slice of the split that is large enough, with the mean of its pictures' scores and signs of collapse."""
    columns = {name: table[name].to_pylist() for name in ("caption", "references", "brightness", "slots", "source")}
    slices = all_slices(
        columns["references"], columns["brightness"], columns["slots"], columns["source"], config.min_slice
    )
    return [
        {
            "kind": piece.kind,
            "name": piece.name,
            "n": len(piece.rows),
            "clusters": len({whole.clusters[row] for row in piece.rows}),
            "metrics": _slice_metrics(piece.rows, whole, config),
            "collapse": collapse_measures(
                [columns["caption"][row] for row in piece.rows],
                [columns["references"][row] for row in piece.rows],
                known,
            ),
        }
        for piece in slices
    ]


def _slice_metrics(rows: Ints, whole: Scored, config: EvalConfig) -> dict[str, dict[str, Any]]:
    inside = np.zeros(len(whole.clusters), dtype=np.bool_)
    inside[rows] = True
    found: dict[str, dict[str, Any]] = {}
    for key, values in whole.items.items():
        declared = inside & ~np.isnan(values)
        if declared.any():
            kin = pick(whole.clusters, declared)
            found[key] = asdict(
                bootstrap_mean(values[declared], clusters=kin, resamples=config.resamples, seed=config.seed)
            )
    return found


def captions_table(systems: Sequence[System], scored: ScoredSystems) -> CaptionTable:
    """Every caption of every system with its per-picture scores, for whoever wants to look closer."""
    tables: list[CaptionTable] = []
    for system in systems:
        for split, table in system.captions.items():
            for name, value in (("split", split), ("system", system.key)):
                table = table.add_column(0, name, pa.array([value] * table.num_rows, pa.string()))
            for metric, values in sorted(scored[system.key][split].items.items()):
                table = table.append_column(f"score_{metric}", pa.array(values, pa.float64()))
            tables.append(table)
    return pa.concat_tables(tables, promote_options="default")


def _system_json(system: System, scored: Mapping[str, Scored], known: Collection[str]) -> dict[str, Any]:
    return {
        "label": LABELS[system.key],
        "in_a_sentence": IN_A_SENTENCE[system.key],
        "about": system.about,
        "version": system.version,
        "splits": {
            name: {
                "n": table.num_rows,
                "left_out": int((~scored[name].fair).sum()),
                "metrics": scored[name].metrics,
                "notes": list(scored[name].notes.values()),
                "collapse": collapse_measures(table["caption"].to_pylist(), table["references"].to_pylist(), known),
            }
            for name, table in system.captions.items()
        },
    }


def _split_json(table: CaptionTable) -> dict[str, Any]:
    """Enough to tell whether two reports speak of the same pictures and references."""
    rows = [table["image_id"].to_pylist(), table["references"].to_pylist()]
    return {"n": table.num_rows, "clusters": len(set(table["cluster"].to_pylist())), "sha256": digest(rows)}
