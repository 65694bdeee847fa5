"""What the store still has of that from which shards and models were made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import StoreError
from vlm_assets.store import Store

if TYPE_CHECKING:
    from vlm_assets.evaluation.originals import Originals


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
