"""The job `bulk_captions`: a folder, bucket or table of pictures of any size, captioned by the released model.

A job and no asset: it is run for some pictures, not whenever the model changes, so `--select '*'` does not know it.
What it makes is an artifact in the store all the same, and its materialization is in Dagster's catalog.
"""

from typing import Any

import dagster as dg

from vlm_assets.bulk.config import BulkConfig
from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import ConfigError
from vlm_assets.resources import StoreResource, TrackerResource
from vlm_assets.store import Built, Store

KEY = dg.AssetKey("bulk_captions")
SHOWN = 10


@dg.op
def caption_pictures(
    context: dg.OpExecutionContext, config: BulkConfig, store: StoreResource, tracker: TrackerResource
) -> None:
    """Caption all pictures of a source; a run that was killed is gone on with by the next."""
    from vlm_assets.bulk.artifact import build_bulk_captions
    from vlm_assets.bulk.blocks import plan_blocks
    from vlm_assets.bulk.captioning import BulkWork

    opened = store.open()
    model, version = chosen_model(opened, tracker.address(), config.model_version)
    context.log.info(f"listing {config.pictures}")
    plan = plan_blocks(
        config.pictures, config.picture_column, config.id_column, config.block_pictures, context.log.info
    )
    context.log.info(f"{plan.pictures:,} pictures in {len(plan.blocks):,} blocks, model {version}")
    built = build_bulk_captions(opened, plan, BulkWork(plan.root, opened.uri, model, config), context.log.info)
    context.log_event(dg.AssetMaterialization(KEY, metadata=_metadata(built, version, config)))


@dg.job(description="Caption a folder, bucket or Parquet table of any size with the released model, on Ray Data.")
def bulk_captions() -> None:
    """Config: `ops: {caption_pictures: {config: {pictures: s3://bucket/prefix}}}`."""
    caption_pictures()


def chosen_model(store: Store, tracking_uri: str, version: str) -> tuple[ArtifactRef, str]:
    """The champion, or the named model; with the version of its bundle. Raises ConfigError, GateError, StoreError."""
    from vlm_assets.release.ledger import Ledger
    from vlm_assets.release.promotion import find_candidate

    if version:
        candidate = find_candidate(store, tracking_uri, version)
        return candidate.artifact, candidate.bundle_version
    champion = Ledger(store).champion()
    if champion is None:
        raise ConfigError("No model has been released yet. Materialize released_model, or set model_version.")
    return champion.artifact, champion.bundle_version


def _metadata(built: Built, version: str, config: BulkConfig) -> dict[str, Any]:
    import pyarrow.parquet as pq

    from vlm_assets.bulk.artifact import FAILED

    first = pq.ParquetFile(built.path / "captions-00000.parquet")
    shown = next(first.iter_batches(SHOWN, columns=["id", "caption", "confidence"])).to_pylist()
    failed = pq.read_table(built.path / FAILED).slice(0, SHOWN).to_pylist()
    return {
        "model_version": version,
        "dagster/uri": built.ref.uri,
        "version": built.ref.version,
        "pictures_from": config.pictures,
        **dict(built.ref.counts),
        "first": dg.MetadataValue.table([dg.TableRecord({**row, "caption": row["caption"] or ""}) for row in shown])
        if shown
        else "none",
        "failed_first": dg.MetadataValue.table([dg.TableRecord(row) for row in failed]) if failed else "none",
        "reused": built.reused,
    }
