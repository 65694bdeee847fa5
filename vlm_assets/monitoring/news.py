"""What there is to learn from since the champion was trained: a source that changed, corrections accepted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef, digest
from vlm_assets.errors import StoreError
from vlm_assets.presets import preset_config
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import read_ref
from vlm_assets.store import Store

CORRECTIONS = dg.AssetKey("feedback_captions")


@dataclass(frozen=True)
class News:
    """Corrections accepted since the champion's data, whether its source changed, and a name for what there is now."""

    corrections: int
    source_changed: bool
    identity: str

    @property
    def nothing(self) -> bool:
        """Whether a retraining would see what the champion saw."""
        return not self.corrections and not self.source_changed


def news(store: Store) -> News | None:
    """Compare what the champion was trained on with what there is; None before the first champion."""
    champion = Ledger(store).champion()
    if champion is None:
        return None
    recipe = _raw_recipe(store, champion.artifact)
    now = read_ref(store.backend, CORRECTIONS)
    accepted = now.counts.get("accepted", 0) if now else 0
    seen_version = recipe.get("parents", {}).get("feedback_captions", "")
    seen = store.lookup("feedback_captions", seen_version) if seen_version else None
    new = 0 if now and now.version == seen_version else max(0, accepted - (seen.counts["accepted"] if seen else 0))
    source = source_fingerprint()
    known = recipe.get("inputs", {}).get("source")
    changed = bool(source and known and source != known)
    return News(new, changed, digest([source, now.version if now and accepted else ""])[:16])


def source_fingerprint() -> str:
    """Of the source in VLM_PRESET, or of the embedded default; "" for a pinned revision, which never changes."""
    from vlm_assets.data.config import RawDatasetConfig

    ops: Mapping[str, Any] = (preset_config() or {}).get("ops", {})
    settings: Mapping[str, Any] = (ops.get("raw_dataset") or {}).get("config", {})
    chosen = RawDatasetConfig(**settings).source
    return chosen.open().fingerprint() if hasattr(chosen, "open") else ""


def _raw_recipe(store: Store, model: ArtifactRef) -> Mapping[str, Any]:
    """How the raw dataset behind a model was made; nothing for a model that came from elsewhere."""
    try:
        raw = store.parent(store.parent(model, "tokenized_shards"), "raw_dataset")
        return store.manifest(raw)["recipe"]
    except (StoreError, KeyError):
        return {}
