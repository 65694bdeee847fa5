"""What there is to learn from since the champion was trained: a source that changed, corrections accepted.

What a candidate has learnt from that the gate refused is no news either: the same data would be refused again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef, digest
from vlm_assets.errors import StoreError
from vlm_assets.presets import preset_config
from vlm_assets.release.gate import VERDICT, Verdict
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import read_ref
from vlm_assets.store import Store

CORRECTIONS = dg.AssetKey("feedback_captions")
REPORT = dg.AssetKey("eval_report")


@dataclass(frozen=True)
class News:
    """Corrections accepted since, whether the source changed since, and a name for what there is now.

    Since the champion's data, or those of `refused`, a later candidate that the gate refused ("": none).
    """

    corrections: int
    source_changed: bool
    identity: str
    refused: str = ""

    @property
    def nothing(self) -> bool:
        """Whether a retraining would see what the champion, or the refused candidate, saw."""
        return not self.corrections and not self.source_changed


def news(store: Store) -> News | None:
    """Compare what the champion was trained on with what there is; None before the first champion."""
    champion = Ledger(store).champion()
    if champion is None:
        return None
    now = read_ref(store.backend, CORRECTIONS)
    source = source_fingerprint()
    identity = digest([source, now.version if now and now.counts.get("accepted") else ""])[:16]
    corrections, changed = _since(store, _raw_recipe(store, champion.artifact), now, source)
    refused = _last_refused(store, champion.artifact)
    recipe = _raw_recipe(store, refused) if refused else {}
    if refused is None or not recipe:
        return News(corrections, changed, identity)
    untried, changed_again = _since(store, recipe, now, source)
    return News(min(corrections, untried), changed and changed_again, identity, refused.version)


def source_fingerprint() -> str:
    """Of the source in VLM_PRESET, or of the embedded default; "" for a pinned revision, which never changes."""
    from vlm_assets.data.config import RawDatasetConfig

    ops: Mapping[str, Any] = (preset_config() or {}).get("ops", {})
    settings: Mapping[str, Any] = (ops.get("raw_dataset") or {}).get("config", {})
    chosen = RawDatasetConfig(**settings).source
    return chosen.open().fingerprint() if hasattr(chosen, "open") else ""


def _since(store: Store, recipe: Mapping[str, Any], now: ArtifactRef | None, source: str) -> tuple[int, bool]:
    """Beyond the raw dataset of this recipe: corrections accepted since, and whether its source has changed."""
    accepted = now.counts.get("accepted", 0) if now else 0
    seen_version = recipe.get("parents", {}).get("feedback_captions", "")
    seen = store.lookup("feedback_captions", seen_version) if seen_version else None
    new = 0 if now and now.version == seen_version else max(0, accepted - (seen.counts["accepted"] if seen else 0))
    known = recipe.get("inputs", {}).get("source")
    return new, bool(source and known and source != known)


def _last_refused(store: Store, champion: ArtifactRef) -> ArtifactRef | None:
    """The candidate of the last report, if the gate refused it and nobody made it champion all the same."""
    report = read_ref(store.backend, REPORT)
    if report is None:
        return None
    try:
        verdict = Verdict.from_json(json.loads((store.directory(report) / VERDICT).read_text()))
        candidate = store.parent(report, "finetuned_model")
    except (StoreError, KeyError):
        return None
    return None if verdict.passed or candidate.version == champion.version else candidate


def _raw_recipe(store: Store, model: ArtifactRef) -> Mapping[str, Any]:
    """How the raw dataset behind a model was made; nothing for a model that came from elsewhere."""
    try:
        raw = store.parent(store.parent(model, "tokenized_shards"), "raw_dataset")
        return store.manifest(raw)["recipe"]
    except (StoreError, KeyError):
        return {}
