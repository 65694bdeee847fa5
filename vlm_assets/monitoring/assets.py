"""Assets of the monitoring group: what was asked and answered, and how far that is from the reference."""

import json
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.monitoring.compaction import ROWS, SCHEMA, SUMMARY, read_window, write_window
from vlm_assets.monitoring.config import DriftConfig, RequestLogConfig
from vlm_assets.monitoring.plots import png_markdown
from vlm_assets.monitoring.report import PAGE, PLOT, headline, read_report, write_report
from vlm_assets.resources import StoreResource, request_log_dir

GROUP = "monitoring"
OWNERS = ["team:vlm"]
REQUEST_LOG_VERSION = "2"
DRIFT_REPORT_VERSION = "1"
SAMPLE_ROWS = 5
SECONDS_PER_HOUR = 3600.0


@dg.asset(
    group_name=GROUP,
    kinds={"python", "parquet"},
    owners=OWNERS,
    code_version=REQUEST_LOG_VERSION,
    deps=[dg.AssetKey("serving_app")],
    description="The window of requests that serving answered: checked, each request once, oldest first.",
)
def request_log(context: dg.AssetExecutionContext, config: RequestLogConfig, store: StoreResource):
    """Compact serving's own log. No requests is a legitimate artifact with no rows."""
    directory = Path(config.directory) if config.directory else request_log_dir()
    window = read_window(directory, time.time() - config.window_h * SECONDS_PER_HOUR, config.max_rows)
    context.log.info(f"{window.table.num_rows} requests in the last {config.window_h:g} h; left out: {window.dropped}")
    # what lies outside the store counts by its content: the same requests are the same artifact, whenever compacted
    recipe = Recipe("request_log", REQUEST_LOG_VERSION, config.model_dump(), inputs={"requests": window.fingerprint()})
    built = store.open().build(recipe, lambda draft: draft.counts.update(write_window(window, draft.path)))
    return dg.MaterializeResult(
        value=built.ref, data_version=dg.DataVersion(built.ref.version), metadata=_log_metadata(built.ref, built.path)
    )


@dg.asset(
    group_name=GROUP,
    kinds={"python", "evidently"},
    owners=OWNERS,
    code_version=DRIFT_REPORT_VERSION,
    description="Whether the released model's traffic still looks like the pictures it was validated on.",
)
def drift_report(
    context: dg.AssetExecutionContext,
    config: DriftConfig,
    store: StoreResource,
    request_log: ArtifactRef,
    released_model: ArtifactRef,
):
    """Compare the traffic that this very model answered with the reference in its bundle. Too little is no error."""
    opened = store.open()
    recipe = Recipe("drift_report", DRIFT_REPORT_VERSION, config.model_dump(), parents=(request_log, released_model))
    log, released = opened.directory(request_log), opened.directory(released_model)
    built = opened.build(recipe, lambda draft: draft.counts.update(write_report(log, released, draft.path, config)))
    report = read_report(built.path)
    context.log.info(headline(report))
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata=_drift_metadata(report, built.path, released_model),
    )


def _log_metadata(ref: ArtifactRef, path: Path) -> dict[str, Any]:
    sample = pq.read_table(path / ROWS, columns=["request_id", "model_version", "caption", "confidence", "latency_ms"])
    records = [dg.TableRecord(row) for row in sample.slice(max(0, sample.num_rows - SAMPLE_ROWS)).to_pylist()]
    columns = [dg.TableColumn(field.name, str(field.type)) for field in SCHEMA]
    metadata: dict[str, Any] = {
        "dagster/row_count": sample.num_rows,
        "dagster/uri": ref.uri,
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "summary": dg.MetadataValue.json(json.loads((path / SUMMARY).read_text())),
    }
    return {**metadata, "latest requests": dg.MetadataValue.table(records)} if records else metadata


def _drift_metadata(report: dict[str, Any], path: Path, released_model: ArtifactRef) -> dict[str, Any]:
    """What people look at, and what the drift sensor reads: verdict, p_value, effect_size, n_traffic and identities."""
    metadata: dict[str, Any] = {
        "verdict": report["verdict"],
        "n_traffic": report["n_traffic"],
        "n_reference": report["n_reference"],
        "reference_version": report["reference_version"],
        "window_id": report["window_id"],
        "released_model_version": released_model.version,
        "dagster/uri": str(path),
    }
    if report["p_value"] is None:
        return metadata
    return {
        **metadata,
        "p_value": report["p_value"],
        "effect_size": report["effect_size"],
        "features": dg.MetadataValue.table([dg.TableRecord(row) for row in report["features"]]),
        "evidently": dg.MetadataValue.path(path / PAGE),
        "plot": dg.MetadataValue.md(png_markdown((path / PLOT).read_bytes(), headline(report))),
    }
