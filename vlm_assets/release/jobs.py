"""Jobs that change the champion by hand: `promote` any candidate, `rollback` to an earlier champion; both hot-swap."""

from typing import Any

import dagster as dg

from vlm_assets.errors import DeployError
from vlm_assets.release.config import PromoteConfig, RollbackConfig
from vlm_assets.release.deploy import ServeResource
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.release.promotion import force_promotion, roll_back
from vlm_assets.release.show import ledger_page
from vlm_assets.resources import StoreResource, TrackerResource, write_ref

RELEASED = dg.AssetKey("released_model")


@dg.op
def promote_version(
    context: dg.OpExecutionContext,
    config: PromoteConfig,
    store: StoreResource,
    tracker: TrackerResource,
    serve: ServeResource,
) -> None:
    """Make any sound candidate champion."""
    entry = force_promotion(store.open(), tracker.address(), config.version, config.reason, context.run_id)
    _follow(context, store, serve, entry)


@dg.op
def roll_back_champion(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    store: StoreResource,
    tracker: TrackerResource,
    serve: ServeResource,
) -> None:
    """Make an earlier champion champion again."""
    current = Ledger(store.open()).champion()
    if config.only_if_champion and current and current.bundle_version != config.only_if_champion:
        context.log.info(f"{config.only_if_champion} is champion no longer: nothing to roll back")
        return
    entry = roll_back(store.open(), tracker.address(), config.version, config.reason, context.run_id)
    _follow(context, store, serve, entry)


@dg.job(description="Make a candidate champion against the gate's verdict, with a reason; Ray Serve swaps if it runs.")
def promote() -> None:
    """Config: `ops: {promote_version: {config: {version: …, reason: …}}}`."""
    promote_version()


@dg.job(description="Make the previous or a named champion champion again, with a reason; Ray Serve swaps if it runs.")
def rollback() -> None:
    """Config: `ops: {roll_back_champion: {config: {reason: …}}}`."""
    roll_back_champion()


def _follow(context: dg.OpExecutionContext, store: StoreResource, serve: ServeResource, entry: LedgerEntry) -> None:
    """What the ledger says now becomes true elsewhere: the asset's reference, its page, the running application."""
    opened = store.open()
    write_ref(opened.backend, RELEASED, "last", entry.artifact)
    context.log.info(f"{entry.action}: bundle {entry.bundle_version} is champion (ledger entry {entry.number})")
    context.log_event(
        dg.AssetMaterialization(
            RELEASED,
            metadata=_metadata(entry, Ledger(opened).entries()),
            tags={"dagster/data_version": entry.artifact.version},
        )
    )
    if not serve.standing_address():
        context.log.info("no Ray Serve is named (VLM_SERVE_ADDRESS), so nothing is swapped")
        return
    try:
        serve.deploy(opened.directory(entry.artifact) / "bundle", entry.bundle_version, context.log.info)
    except DeployError as error:
        raise DeployError(
            f"The ledger names bundle {entry.bundle_version} now, but it is not served: {error} "
            "Once that is mended: python -m vlm_assets deploy"
        ) from error


def _metadata(entry: LedgerEntry, entries: list[LedgerEntry]) -> dict[str, Any]:
    return {
        "bundle_version": entry.bundle_version,
        "ledger_entry": entry.number,
        "why": entry.why,
        "dagster/uri": entry.artifact.uri,
        "ledger": dg.MetadataValue.table([dg.TableRecord(row) for row in ledger_page(entries)]),
    }
