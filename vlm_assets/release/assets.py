"""Assets of the release group: the gate's verdict made true, and the application that serves it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import GateError
from vlm_assets.release.config import ReleaseConfig
from vlm_assets.release.deploy import ServeResource
from vlm_assets.release.gate import Verdict
from vlm_assets.release.history import history
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.release.promotion import headline_scores
from vlm_assets.release.show import ledger_table
from vlm_assets.resources import StoreResource, TrackerResource
from vlm_assets.training.model_registry import set_champion_alias

GROUP = "release"
OWNERS = ["team:vlm"]


@dg.asset(
    group_name=GROUP,
    kinds={"python", "mlflow"},
    owners=OWNERS,
    code_version="1",
    description="The champion: a candidate that passed the gate, entered in the ledger and aliased in MLflow.",
)
def released_model(
    context: dg.AssetExecutionContext,
    config: ReleaseConfig,
    store: StoreResource,
    tracker: TrackerResource,
    eval_report: ArtifactRef,
    finetuned_model: ArtifactRef,
):
    """Read the verdict again and promote; the reference handed on is the candidate's own, nothing is copied."""
    opened = store.open()
    report = opened.directory(eval_report)
    verdict = Verdict.from_json(json.loads((report / "verdict.json").read_text()))
    bundle = json.loads((opened.directory(finetuned_model) / "bundle" / "bundle.json").read_text())["version"]
    check_same_candidate(report, finetuned_model)
    ledger = Ledger(opened)
    champion = ledger.champion()
    if champion is None or champion.bundle_version != bundle:
        check_not_rolled_back(ledger.entries(), bundle, config.force_reason)
        why = decide(verdict, config.force_reason)
        scores = headline_scores(report)
        champion = ledger.promote(finetuned_model, bundle, seen=champion, why=why, run_id=context.run_id, scores=scores)
        context.log.info(f"promoted bundle {bundle} (ledger entry {champion.number}): {why}")
    else:
        context.log.info(f"bundle {bundle} is the champion already (ledger entry {champion.number})")
    registry_version = set_champion_alias(tracker.address(), champion.artifact.version)
    return dg.MaterializeResult(
        value=champion.artifact,
        data_version=dg.DataVersion(champion.artifact.version),
        metadata=_release_metadata(champion, registry_version, ledger.entries()),
    )


def check_same_candidate(report: Path, candidate: ArtifactRef) -> None:
    """The verdict must be about this very candidate."""
    judged = json.loads((report / "scores.json").read_text())["lineage"]["finetuned_model"]
    if judged != candidate.version:
        raise GateError(
            f"eval_report judged candidate {judged}, to be released is {candidate.version}. "
            "Materialize eval_report again."
        )


def check_not_rolled_back(entries: Sequence[LedgerEntry], bundle: str, force_reason: str) -> None:
    """What people took out of service does not come back by itself when the same candidate is made again."""
    left = history(entries).withdrawn.get(bundle)
    if left and not force_reason:
        raise GateError(
            f"Bundle {bundle} was rolled back (ledger entry {left.number}: {left.why}) and is not released again by "
            "itself. Train another candidate, or set force_reason on released_model."
        )


def decide(verdict: Verdict, force_reason: str) -> str:
    """Why the candidate is promoted; GateError if it may not be."""
    if verdict.passed:
        return verdict.why
    if force_reason:
        return f"forced: {force_reason} (against: {verdict.why})"
    raise GateError(
        f"The candidate may not be released: {verdict.why}. Train it better, or set force_reason on released_model."
    )


def _release_metadata(champion: LedgerEntry, registry_version: str, entries: list[LedgerEntry]) -> dict[str, Any]:
    return {
        "bundle_version": champion.bundle_version,
        "ledger_entry": champion.number,
        "why": champion.why,
        "mlflow_registry_version": registry_version,
        "dagster/uri": champion.artifact.uri,
        "ledger": dg.MetadataValue.table([dg.TableRecord(row) for row in ledger_table(entries)]),
    }


@dg.asset(
    group_name=GROUP,
    kinds={"ray", "fastapi"},
    owners=OWNERS,
    code_version="1",
    io_manager_key="io_manager",
    description="The Ray Serve application on the champion, proved by a golden picture captioned over HTTP.",
)
def serving_app(
    context: dg.AssetExecutionContext, store: StoreResource, serve: ServeResource, released_model: ArtifactRef
):
    """Deploy or hot-update; green only when the HTTP answer is the recorded caption from the released version."""
    path = store.open().directory(released_model) / "bundle"
    version = json.loads((path / "bundle.json").read_text())["version"]
    deployment = serve.deploy(path, version, context.log.info)
    where = deployment.http_url if deployment.standing else "a local Ray Serve, stopped again (VLM_SERVE_ADDRESS unset)"
    context.log.info(f"{where} captioned the golden picture in {deployment.latency_ms:.0f} ms")
    return dg.MaterializeResult(
        value=released_model,
        data_version=dg.DataVersion(released_model.version),
        metadata={
            "model_version": deployment.model_version,
            "standing": deployment.standing,
            "url": dg.MetadataValue.url(deployment.http_url) if deployment.standing else where,
            "golden_caption": deployment.golden_caption,
            "golden_latency_ms": deployment.latency_ms,
        },
    )
