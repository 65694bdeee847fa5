"""What the store still has of that from which shards and models were made, and by which a model was released."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import StoreError
from vlm_assets.release.ledger import LedgerEntry
from vlm_assets.release.promotion import headline_scores
from vlm_assets.resources import read_ref, refs_of_all_runs
from vlm_assets.store import Store

if TYPE_CHECKING:
    from vlm_assets.evaluation.originals import Originals

REPORT = dg.AssetKey("eval_report")


def splits_of(store: Store, shards: ArtifactRef) -> Path | None:
    """The directory of the splits behind the shards; None for shards that came from elsewhere, without theirs."""
    if "validated_splits" not in store.manifest(shards)["recipe"]["parents"]:
        return None
    return store.directory(store.parent(shards, "validated_splits"))


def originals_of(store: Store, shards: ArtifactRef) -> Originals | None:
    """The pictures behind the shards; None for shards that came from elsewhere, without what they were made from."""
    from vlm_assets.evaluation.originals import Originals

    parents = store.manifest(shards)["recipe"]["parents"]
    if not {"validated_splits", "raw_dataset"} <= set(parents):
        return None
    splits, raw = (store.directory(store.parent(shards, name)) for name in ("validated_splits", "raw_dataset"))
    return Originals(splits, raw)


def trained_on(store: Store, model: ArtifactRef) -> frozenset[str] | None:
    """The image_ids that trained a finetuned_model; None if the store has no longer, or never had, its splits."""
    from vlm_assets.evaluation.provenance import training_pictures

    if "tokenized_shards" not in store.manifest(model)["recipe"]["parents"]:
        return None
    try:
        splits = splits_of(store, store.parent(model, "tokenized_shards"))
    except StoreError:
        return None
    return None if splits is None else training_pictures(splits)


def released_on(store: Store, entries: Sequence[LedgerEntry]) -> ArtifactRef | None:
    """The eval_report whose figures the ledger has of the champion, the last of `entries`.

    Mostly the run that released it made it; for a model promoted by hand, or by a run that went on for a failed one,
    it was another. None if the store has it no longer, or never had one.
    """
    champion = entries[-1]
    runs = [entry.run_id for entry in entries if entry.artifact.version == champion.artifact.version]
    likely = (read_ref(store.backend, REPORT, run_id) for run_id in runs)
    reports = chain(likely, refs_of_all_runs(store.backend, REPORT))
    return next((report for report in reports if report and _is_about(store, report, champion)), None)


def _is_about(store: Store, report: ArtifactRef, champion: LedgerEntry) -> bool:
    try:
        parents = store.manifest(report)["recipe"]["parents"]
        if parents.get("finetuned_model") != champion.artifact.version:
            return False
        return headline_scores(store.directory(report)) == dict(champion.scores)
    except StoreError:
        return False
