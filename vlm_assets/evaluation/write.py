"""Everything the asset does between its inputs and its artifact: caption, score, draw, write. Needs no Dagster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from vlm_assets.evaluation.display import CIDER, EXACT
from vlm_assets.evaluation.evaluate import Scored, captions_table, score_everything, scores_json
from vlm_assets.evaluation.gallery import Card, choose, contact_sheet
from vlm_assets.evaluation.pictures import pick_pictures, read_texts, split_files
from vlm_assets.evaluation.plots import write_score_plot
from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.report import render_report
from vlm_assets.evaluation.systems import (
    CANDIDATE,
    HEADLINE_SPLIT,
    TRAIN_SPLIT,
    Models,
    base_facts,
    baseline_systems,
    caption_models,
    golden_facts,
)

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import EvalConfig

SCORES, CAPTIONS, REPORT = "scores.json", "captions.parquet", "report.html"
SCORE_PLOT, GALLERY = "scores.png", "gallery.png"
CONTACT_SHEET_PICTURES = 12


def write_evaluation(
    out: Path,
    shards: Path,
    models: Models,
    config: EvalConfig,
    lineage: Mapping[str, str],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Evaluate `models` on `shards` and fill the directory `out`; returns what scores.json holds.

    Raises ConfigError if there is no test split, or if candidate and base were made for pictures of different sizes.
    """
    training = read_texts(split_files(shards, TRAIN_SPLIT))
    systems = caption_models(shards, models, config, log)
    systems += baseline_systems(shards, systems[0], training, log, config.max_pictures)
    log("scoring")
    scored = score_everything(systems, training, config)
    scores = scores_json(systems, scored, training, config)
    scores |= {"base": base_facts(models.base), "lineage": dict(lineage), **facts(shards, models)}
    scores["golden"] = golden_facts(models.candidate)
    gallery = gallery_cards(systems[0].captions[HEADLINE_SPLIT], scored[CANDIDATE][HEADLINE_SPLIT], shards, config)
    (out / SCORES).write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pq.write_table(captions_table(systems, scored), out / CAPTIONS, compression="zstd")
    (out / REPORT).write_text(render_report(scores, gallery), encoding="utf-8")
    (out / GALLERY).write_bytes(contact_sheet(gallery["random"][:CONTACT_SHEET_PICTURES]))
    write_score_plot(scores, out / SCORE_PLOT)
    return scores


def facts(shards: Path, models: Models) -> dict[str, Any]:
    """The note at the head of the report and the attribution at its foot."""
    summary: dict[str, Any] = json.loads((shards / "summary.json").read_text())
    attribution: Mapping[str, str] = summary.get("attribution", {})
    credit = " · ".join(attribution[key] for key in ("title", "text", "licence", "url") if attribution.get(key))
    about = base_facts(models.base)["description"]
    limits = "The numbers hold for pictures like those of this data set and say nothing about others."
    return {"note": f"Base model: {about} {limits}", "attribution": [f"Pictures: {credit}"] if credit else []}


def gallery_cards(table: CaptionTable, scored: Scored, shards: Path, config: EvalConfig) -> dict[str, list[Card]]:
    """Cards of the report's gallery: random, worst and best pictures of the headline split by CIDEr."""
    parts = choose(scored.items[CIDER.key], config.gallery_pictures, config.seed)
    rows = [row for part in parts.values() for row in part]
    chosen = {row: table.slice(row, 1).to_pylist()[0] for row in rows}
    ids = {row["image_id"] for row in chosen.values()}
    pictures = pick_pictures(split_files(shards, HEADLINE_SPLIT), ids)
    return {name: [_card(chosen[row], row, pictures, scored) for row in part] for name, part in parts.items()}


def _card(said: Mapping[str, Any], row: int, pictures: Mapping[str, bytes], scored: Scored) -> Card:
    references: Sequence[str] = said["references"]
    return Card(
        image_id=said["image_id"],
        picture=pictures[said["image_id"]],
        caption=said["caption"],
        references=tuple(references),
        confidence=said["confidence"],
        score=float(scored.items[CIDER.key][row]),
        exact=bool(scored.items[EXACT.key][row] == 1),
    )
