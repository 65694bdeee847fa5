"""Assets of the release group: the gate's verdict made true, and the application that serves it."""

import json
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.release.alias import require_registered, sync_alias
from vlm_assets.release.config import ReleaseConfig
from vlm_assets.release.decision import reason_to_release
from vlm_assets.release.deploy import ServeResource
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.release.promotion import bundle_version, headline_scores
from vlm_assets.release.show import ledger_page
from vlm_assets.resources import StoreResource, TrackerResource

GROUP = "release"
OWNERS = ["team:vlm"]


@dg.asset(
    group_name=GROUP,
    kinds={"python", "mlflow"},
    owners=OWNERS,
    code_version="2",
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
    """Read the verdict again and promote; the reference handed on is the candidate's own, nothing is copied.

    The champion read here is the one that the verdict must be about and the one that the new entry replaces.
    """
    opened = store.open()
    ledger = Ledger(opened)
    bundle = bundle_version(opened, finetuned_model)
    entries = ledger.entries()
    champion = entries[-1] if entries else None
    if champion is None or champion.bundle_version != bundle:
        report = opened.directory(eval_report)
        why = reason_to_release(report, finetuned_model, bundle, entries, config.force_reason)
        require_registered(tracker.address(), finetuned_model)
        scores = headline_scores(report)
        champion = ledger.promote(finetuned_model, bundle, seen=champion, why=why, run_id=context.run_id, scores=scores)
        context.log.info(f"promoted bundle {bundle} (ledger entry {champion.number}): {why}")
    else:
        context.log.info(f"bundle {bundle} is the champion already (ledger entry {champion.number})")
    registry_version = sync_alias(ledger, tracker.address())
    return dg.MaterializeResult(
        value=champion.artifact,
        data_version=dg.DataVersion(champion.artifact.version),
        metadata=_release_metadata(champion, registry_version, ledger.entries()),
    )


def _release_metadata(champion: LedgerEntry, registry_version: str, entries: list[LedgerEntry]) -> dict[str, Any]:
    return {
        "bundle_version": champion.bundle_version,
        "ledger_entry": champion.number,
        "why": champion.why,
        "mlflow_registry_version": registry_version,
        "dagster/uri": champion.artifact.uri,
        "ledger": dg.MetadataValue.table([dg.TableRecord(row) for row in ledger_page(entries)]),
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
