"""What `champion_report` does between its inputs and its artifact: caption, score, compare, write. Needs no Dagster."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from vlm_assets.evaluation.evaluate import captions_table
from vlm_assets.evaluation.held_out import HeldOut, Pictures, Said
from vlm_assets.evaluation.pictures import read_texts, split_files, split_names
from vlm_assets.evaluation.provenance import placed_table
from vlm_assets.evaluation.scored import Scored, score_everything
from vlm_assets.evaluation.since_release import change_since, no_comparison
from vlm_assets.evaluation.systems import CANDIDATE, CHAMPION, HEADLINE_SPLIT, System, open_captioner
from vlm_assets.evaluation.write import CAPTIONS, SCORES

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import ChampionConfig
    from vlm_assets.evaluation.predict import CaptionTable

CORRECTIONS = "corrections"
SCORES_SCHEMA = 1
COLUMNS_THEN = ["image_id", "caption", "references", "cluster", "source"]


@dataclass(frozen=True)
class Champion:
    """Directory of its finetuned_model, the image_ids that trained it, that of the eval_report that it was released on.

    The latter two are None where the store does not know.
    """

    model: Path
    trained_on: frozenset[str] | None = frozenset()
    released_on: Path | None = None


def write_champion_report(
    out: Path,
    champion: Champion,
    pictures: Pictures,
    config: ChampionConfig,
    lineage: Mapping[str, str],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the champion on what it was not trained on and fill `out`; returns what scores.json holds.

    Raises ConfigError without a test split, StoreError where the champion needs originals that are not there.
    """
    captioner = open_captioner(champion.model, config)
    held_out = HeldOut(captioner, pictures, champion.trained_on or frozenset(), config, log)
    said = {HEADLINE_SPLIT: held_out.of_test(), CORRECTIONS: held_out.of_corrections()}
    log("scoring")
    tables = {name: one.table for name, one in said.items() if one.table.num_rows}
    system = System(CHAMPION, "as it is served", captioner.bundle.version, captioner.bundle.generation, tables)
    words = read_texts([file for name in split_names(pictures.shards) for file in split_files(pictures.shards, name)])
    scored = score_everything([system], words, config)
    if champion.released_on is None:
        since = no_comparison("the store has no report of it")
    else:
        then = placed_table(said_then(champion.released_on), held_out.provenance)
        since = change_since(said[HEADLINE_SPLIT].table, then, config)
    scores: dict[str, Any] = {
        "schema": SCORES_SCHEMA,
        "champion": {"version": system.version, "trained_on_is_known": champion.trained_on is not None},
        "pictures": {name: _measured(one, scored[CHAMPION].get(name)) for name, one in said.items()},
        "since_release": since,
        "protocol": {**system.generation.to_json(), **config.model_dump(exclude={"threads", "batch_size"})},
        "lineage": dict(lineage),
    }
    (out / SCORES).write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if tables:
        pq.write_table(captions_table([system], scored), out / CAPTIONS, compression="zstd")
    return scores


def said_then(report: Path) -> CaptionTable:
    """What the candidate of an eval_report, champion by now, said of the test pictures of then."""
    own = [("system", "=", CANDIDATE), ("split", "=", HEADLINE_SPLIT)]
    return pq.read_table(report / CAPTIONS, columns=COLUMNS_THEN, filters=own)


def _measured(said: Said, scored: Scored | None) -> dict[str, Any]:
    metrics = scored.metrics if scored else {}
    return {"n": said.table.num_rows, "left_out": said.left_out, "metrics": metrics}
