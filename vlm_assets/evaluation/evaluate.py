"""From everybody's captions to scores.json: values with intervals, paired differences, slices, signs of collapse."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlm_assets.contracts import digest
from vlm_assets.evaluation.collapse import collapse_measures, plain
from vlm_assets.evaluation.display import METRICS, SLOTS, slot_metric
from vlm_assets.evaluation.pictures import Texts
from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.scores import bleu_differences, score_captions
from vlm_assets.evaluation.significance import Difference, bootstrap_mean, paired_difference
from vlm_assets.evaluation.slices import all_slices
from vlm_assets.evaluation.slots import Vocabulary, slot_accuracy, slot_vocabulary
from vlm_assets.evaluation.systems import CANDIDATE, HEADLINE_SPLIT, IN_A_SENTENCE, LABELS, System
from vlm_serving.generation import GenerationOptions

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import EvalConfig

SCORES_SCHEMA = 1
Items = dict[str, NDArray[np.float64]]  # by metric, one score per picture


@dataclass(frozen=True)
class Scored:
    """One system on one split: estimates as JSON, and the per-picture scores behind them.

    BLEU has no per-picture scores; those of a slot are NaN where the picture does not declare it.
    """

    metrics: dict[str, dict[str, Any]]
    items: Items
    notes: dict[str, str] = field(default_factory=dict[str, str])  # by metric: why its number cannot mean anything
    bleu_statistics: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 10)))


ScoredSystems = dict[str, dict[str, Scored]]  # by system, by split


def score_everything(systems: Sequence[System], training: Texts, config: EvalConfig) -> ScoredSystems:
    """Score every system on every split that it captioned."""
    tables = [table for system in systems for table in system.captions.values()]
    slots = [text for column in [training.slots, *(table["slots"].to_pylist() for table in tables)] for text in column]
    vocabulary = slot_vocabulary([json.loads(text) for text in dict.fromkeys(slots)])
    return {
        system.key: {name: score_split(table, vocabulary, config) for name, table in system.captions.items()}
        for system in systems
    }


def score_split(table: CaptionTable, vocabulary: Vocabulary, config: EvalConfig) -> Scored:
    """Caption metrics and, where the source declares slots, slot accuracy: of all slots together and of each.

    `vocabulary` holds the values of every split: a role known from training only is still a wrong role here.
    """
    captions: list[str] = table["caption"].to_pylist()
    settings = {"resamples": config.resamples, "seed": config.seed}
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
    return Scored(metrics, items, found.notes, found.bleu_statistics)


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
    """Ours minus theirs by metric, for those that both have: means of pictures, and BLEU of whole resamples."""
    settings = {"resamples": config.resamples, "seed": config.seed}
    found = bleu_differences(ours.bleu_statistics, theirs.bleu_statistics, **settings)
    for key, values in ours.items.items():
        if key in theirs.items:
            declared = ~np.isnan(values)  # the same rows in both: what is declared is the picture's
            found[key] = paired_difference(values[declared], theirs.items[key][declared], **settings)
    return found


def slice_scores(
    table: CaptionTable, whole: Scored, known: Collection[str], config: EvalConfig
) -> list[dict[str, Any]]:
    """Every slice of the split that is large enough, with the mean of its pictures' scores and signs of collapse."""
    columns = {name: table[name].to_pylist() for name in ("caption", "references", "brightness", "slots")}
    slices = all_slices(columns["references"], columns["brightness"], columns["slots"], config.min_slice)
    return [
        {
            "kind": piece.kind,
            "name": piece.name,
            "n": len(piece.rows),
            "metrics": {
                key: asdict(bootstrap_mean(declared, resamples=config.resamples, seed=config.seed))
                for key, values in whole.items.items()
                if len(declared := values[piece.rows][~np.isnan(values[piece.rows])])
            },
            "collapse": collapse_measures(
                [columns["caption"][row] for row in piece.rows],
                [columns["references"][row] for row in piece.rows],
                known,
            ),
        }
        for piece in slices
    ]


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
    return {"n": table.num_rows, "sha256": digest(rows)}


def protocol(config: EvalConfig, generation: GenerationOptions) -> dict[str, Any]:
    """How the numbers came about, for readers and for machines. `generation`: the candidate's."""
    decoding = "greedily" if generation.num_beams == 1 else f"with {generation.num_beams} beams"
    return {
        **generation.to_json(),
        "max_pictures": config.max_pictures,
        "resamples": config.resamples,
        "seed": config.seed,
        "min_slice": config.min_slice,
        "text": [
            f"Captions are generated {decoding}, at most {generation.max_new_tokens} tokens, as the sealed bundle "
            "says, by the same code and from the same bundle that serves, on the pixels of the shards."
            + (f" Of each split the first {config.max_pictures:,} pictures count." if config.max_pictures else ""),
            "BLEU, ROUGE-L and CIDEr are those of the COCO caption evaluation: Penn Treebank tokens, lower case, "
            "punctuation dropped. CIDEr weighs words by how rare they are among the references of the split at hand, "
            "so its values on different splits do not compare.",
            "An exact match is a caption that equals one of its references word for word. Slot accuracy asks whether "
            "what the source declares about the picture (role, colour, …) is what the caption says.",
            f"Intervals hold 95 %: percentile bootstrap over pictures, {config.resamples:,} resamples, seed "
            f"{config.seed}; differences are resampled in pairs. They cover the choice of pictures, not the luck of "
            "one training run. A share of exactly 0 or 100 % has no spread to resample: of n pictures, the truth may "
            "still be 3 / n away (the rule of three; Hanley and Lippman-Hand 1983).",
        ],
    }
