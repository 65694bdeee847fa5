"""Everything the asset does between its inputs and its artifact: caption, score, draw, write. Needs no Dagster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from vlm_assets.evaluation.baselines import thumbnails_of
from vlm_assets.evaluation.cards import gallery_cards
from vlm_assets.evaluation.evaluate import captions_table, scores_json
from vlm_assets.evaluation.gallery import contact_sheet
from vlm_assets.evaluation.leaks import leak_facts
from vlm_assets.evaluation.pictures import read_texts, split_files
from vlm_assets.evaluation.plots import write_score_plot
from vlm_assets.evaluation.provenance import Provenance, placed, read_provenance
from vlm_assets.evaluation.report import render_report
from vlm_assets.evaluation.scored import score_everything
from vlm_assets.evaluation.systems import (
    CANDIDATE,
    COPY,
    HEADLINE_SPLIT,
    TRAIN_SPLIT,
    Models,
    base_facts,
    baseline_systems,
    caption_models,
    golden_facts,
    nearest_pictures,
)
from vlm_assets.release.gate import VERDICT, judge
from vlm_assets.training.licences import credit

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
    splits: Path | None = None,
) -> dict[str, Any]:
    """Evaluate `models` on `shards` and fill the directory `out`; returns what scores.json holds.

    `splits` is the directory of the validated_splits behind the shards; without it nothing is said about leaks,
    every picture counts as independent, and there are no slices by source.
    Raises ConfigError if there is no test split, or if candidate and base were made for pictures of different sizes.
    """
    training = read_texts(split_files(shards, TRAIN_SPLIT))
    provenance = Provenance() if splits is None else read_provenance(splits)
    systems = [placed(system, provenance) for system in caption_models(shards, models, config, log)]
    near = nearest_pictures(shards, systems[0], log, config.max_pictures)
    systems += baseline_systems(systems[0], training, near)
    log("scoring")
    scored = score_everything(systems, training, config)
    scores = scores_json(systems, scored, training, config)
    scores |= {"base": base_facts(models.base), "lineage": dict(lineage), **facts(shards, models)}
    scores["golden"] = golden_facts(models.candidate)
    if splits is not None:
        copied = next(system for system in systems if system.key == COPY).captions[HEADLINE_SPLIT]
        looks = thumbnails_of(split_files(shards, HEADLINE_SPLIT), config.max_pictures)
        scores["leaks"] = leak_facts(splits, copied, looks, near[HEADLINE_SPLIT], config)
    log("looking once more at the pictures of the gallery")
    headline = (systems[0].captions[HEADLINE_SPLIT], scored[CANDIDATE][HEADLINE_SPLIT])
    gallery = gallery_cards(*headline, shards, models.candidate, config)
    (out / SCORES).write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    pq.write_table(captions_table(systems, scored), out / CAPTIONS, compression="zstd")
    verdict = judge(scores, config.gate)
    (out / VERDICT).write_text(json.dumps(verdict.to_json(), indent=1) + "\n")
    (out / REPORT).write_text(render_report(scores, gallery, verdict), encoding="utf-8")
    (out / GALLERY).write_bytes(contact_sheet(gallery["random"][:CONTACT_SHEET_PICTURES]))
    write_score_plot(scores, out / SCORE_PLOT)
    return scores


def facts(shards: Path, models: Models) -> dict[str, Any]:
    """The note at the head of the report and the attributions at its foot."""
    summary: dict[str, Any] = json.loads((shards / "summary.json").read_text())
    base: dict[str, Any] = json.loads((models.base / "base.json").read_text())
    sources = {"Pictures": summary.get("attribution", {}), "Base model": base.get("attribution", {})}
    credits = [f"{what}: {said}" for what, source in sources.items() if (said := credit(source))]
    about = base_facts(models.base)["description"]
    limits = "The numbers hold for pictures like those of this data set and say nothing about others."
    return {"note": f"Base model: {about} {limits}", "attribution": credits}
