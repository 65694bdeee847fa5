"""Assets of the monitoring group: what was asked and answered, and how far that is from the reference."""

import json
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.monitoring.alibi import alibi_detector
from vlm_assets.monitoring.compaction import ROWS, SCHEMA, SUMMARY, read_window, write_window
from vlm_assets.monitoring.config import DriftConfig, RequestLogConfig
from vlm_assets.monitoring.history import BEFORE, FIRST, NAME, predecessor, read_history
from vlm_assets.monitoring.plots import png_markdown
from vlm_assets.monitoring.report import PAGE, PLOT, headline, permutation_detector, read_report, write_report
from vlm_assets.resources import StoreResource, request_log_dir

GROUP = "monitoring"
OWNERS = ["team:vlm"]
REQUEST_LOG_VERSION = "3"
DRIFT_REPORT_VERSION = "2"
DATA_VERSION_TAG = "dagster/data_version"
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
    before = predecessor(opened, _latest_version(context), request_log, released_model, DRIFT_REPORT_VERSION)
    recipe = Recipe(
        NAME, DRIFT_REPORT_VERSION, config.model_dump(), parents=(request_log, released_model),
        inputs={BEFORE: before.version if before else ""},
    )  # fmt: skip
    history = read_history(opened.directory(before)) if before else FIRST
    log, released = opened.directory(request_log), opened.directory(released_model)
    detector = alibi_detector(context) if config.detector == "alibi" else permutation_detector
    built = opened.build(
        recipe, lambda draft: draft.counts.update(write_report(log, released, draft.path, config, history, detector))
    )
    report = read_report(built.path)
    context.log.info(headline(report))
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata=_drift_metadata(report, built.path, released_model),
    )


def _latest_version(context: dg.AssetExecutionContext) -> str | None:
    """The version of the report that was made last, by the event log."""
    event = context.instance.get_latest_materialization_event(context.asset_key)
    if event is None or event.asset_materialization is None:
        return None
    return (event.asset_materialization.tags or {}).get(DATA_VERSION_TAG)


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
        "windows_in_a_row": report["windows_in_a_row"],
        "confirmed": report["confirmed"],
        "judged_windows": report["look"],
        "detector": report["detector"],
        "released_model_version": released_model.version,
        "dagster/uri": str(path),
    }
    if report["p_value"] is None:
        return metadata
    tests = {name: report[name] for name in ("p_mmd", "p_classifier", "classifier_auc") if report[name] is not None}
    return {
        **metadata,
        **{name: _shown(report[name]) for name in ("p_value", "effect_size", "alpha")},
        **{name: _shown(value) for name, value in tests.items()},
        "features drifted": ", ".join(row["feature"] for row in report["features"] if row["drifted"]) or "none",
        "features not compared": ", ".join(report["untested"]) or "none",
        "features": dg.MetadataValue.table([_record(row) for row in report["features"]]),
        "evidently": dg.MetadataValue.path(path / PAGE),
        "plot": dg.MetadataValue.md(png_markdown((path / PLOT).read_bytes(), headline(report))),
    }


def _shown(value: float) -> float:
    """Four digits that count: more say nothing here, and the page cuts wide columns off."""
    return float(f"{value:.4g}")


def _record(row: dict[str, Any]) -> dg.TableRecord:
    return dg.TableRecord({name: _shown(value) if isinstance(value, float) else value for name, value in row.items()})
