"""Change the champion by hand: promote any sound candidate against the verdict, or roll back to an earlier champion.

The same ledger as after the gate, the same alias in MLflow; both ask for a reason, which stays in the ledger.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import ConfigError, GateError
from vlm_assets.release.alias import alias_follows, require_registered, sync_alias
from vlm_assets.release.history import PROMOTE, ROLLBACK, earlier_champion
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.store import Store
from vlm_assets.training.model_registry import find_registered

MODEL = "finetuned_model"


@dataclass(frozen=True)
class Candidate:
    """A model in the store that may become champion; `scores` as they are known, by metric."""

    artifact: ArtifactRef
    bundle_version: str
    scores: Mapping[str, float] = field(default_factory=dict[str, float])


def force_promotion(store: Store, tracking_uri: str, version: str, reason: str, run_id: str) -> LedgerEntry:
    """Make `version` (of a bundle, or of a finetuned_model) champion, whatever the gate said.

    Raises ConfigError (no reason), GateError (unknown, champion already, somebody was faster), StoreError or
    BundleError (damaged), TrackingError (MLflow does not know it); the ledger is unchanged then.
    """
    _require_reason(reason)
    ledger = Ledger(store)
    wanted = find_candidate(store, tracking_uri, version.strip())
    return _change(store, tracking_uri, ledger, wanted, PROMOTE, f"forced: {reason.strip()}", run_id)


def roll_back(store: Store, tracking_uri: str, version: str, reason: str, run_id: str) -> LedgerEntry:
    """Make an earlier champion champion again: `version`, or with "" the one that stands below the current champion.

    Two such rollbacks go two champions back: what was rolled back is gone back to only by name. Raises as
    `force_promotion` does; GateError too if `version` was never champion or there is no earlier one that stands.
    """
    _require_reason(reason)
    ledger = Ledger(store)
    earlier = earlier_champion(ledger.entries(), version.strip())
    wanted = Candidate(earlier.artifact, earlier.bundle_version, earlier.scores)
    return _change(store, tracking_uri, ledger, wanted, ROLLBACK, reason.strip(), run_id)


def find_candidate(store: Store, tracking_uri: str, version: str) -> Candidate:
    """A finetuned_model by its own version, by its bundle's in the ledger, or by its bundle's in MLflow."""
    if not version:
        raise ConfigError("version is empty; give the version of a bundle or of a finetuned_model.")
    earlier = [entry for entry in Ledger(store).entries() if entry.bundle_version == version]
    artifact_version = earlier[-1].artifact.version if earlier else version
    artifact = store.lookup(MODEL, artifact_version)
    if artifact is None:
        registered = find_registered(tracking_uri, version)
        artifact = store.lookup(MODEL, registered.artifact_version) if registered else None
    if artifact is None:
        raise GateError(
            f"Neither {store.uri} nor MLflow at {tracking_uri} knows a {MODEL} or a bundle of version {version!r}. "
            "`python -m vlm_assets ledger` lists the champions so far; MLflow's model `captioner` lists all candidates."
        )
    return Candidate(artifact, bundle_version(store, artifact), _known_scores(store, artifact))


def bundle_version(store: Store, artifact: ArtifactRef) -> str:
    """The version of the bundle inside a finetuned_model."""
    return json.loads((store.directory(artifact) / "bundle" / "bundle.json").read_text())["version"]


def headline_scores(report: Path) -> dict[str, float]:
    """The candidate's figures on the test split, by metric."""
    scores: dict[str, Any] = json.loads((report / "scores.json").read_text())
    metrics = scores["systems"]["candidate"]["splits"]["test"]["metrics"]
    return {name: float(estimate["value"]) for name, estimate in metrics.items()}


def check_sound(store: Store, artifact: ArtifactRef) -> None:
    """Every byte as it was sealed, and the golden pictures captioned as recorded; StoreError or BundleError else."""
    from vlm_serving.bundle import open_bundle
    from vlm_serving.captioner import Captioner

    store.verify(artifact)
    Captioner(open_bundle(store.directory(artifact) / "bundle")).check_golden()


def _change(
    store: Store, tracking_uri: str, ledger: Ledger, wanted: Candidate, action: str, why: str, run_id: str
) -> LedgerEntry:
    champion = ledger.champion()
    if champion is not None and champion.bundle_version == wanted.bundle_version:
        return _repeat(tracking_uri, ledger, champion)
    check_sound(store, wanted.artifact)
    require_registered(tracking_uri, wanted.artifact)
    entry = ledger.promote(
        wanted.artifact, wanted.bundle_version, seen=champion, why=why, run_id=run_id, scores=wanted.scores,
        action=action,
    )  # fmt: skip
    sync_alias(ledger, tracking_uri)
    return entry


def _repeat(tracking_uri: str, ledger: Ledger, champion: LedgerEntry) -> LedgerEntry:
    """What is champion already needs no new entry; but if the alias was left behind, this is the way to mend it."""
    if alias_follows(tracking_uri, champion):
        raise GateError(
            f"Bundle {champion.bundle_version} is the champion already (ledger entry {champion.number}: "
            f"{champion.why})."
        )
    sync_alias(ledger, tracking_uri)
    return champion


def _known_scores(store: Store, artifact: ArtifactRef) -> dict[str, float]:
    """Of the entry that released it before, or of the last report if that is about it; else none."""
    earlier = [entry for entry in Ledger(store).entries() if entry.artifact.version == artifact.version]
    if earlier:
        return dict(earlier[-1].scores)
    text = store.backend.read_text("refs/eval_report/last.json")
    report = store.directory(ArtifactRef.from_json(json.loads(text))) if text else None
    if report is None:
        return {}
    judged = json.loads((report / "scores.json").read_text())["lineage"].get(MODEL)
    return headline_scores(report) if judged == artifact.version else {}


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise ConfigError("reason is empty; say why, for those who read the ledger later.")
