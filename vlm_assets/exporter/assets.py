"""Assets, their checks, the gate, the champion and drift as samples. All from Dagster's event log."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as CheckStatus

from vlm_assets.exporter.gauges import Sample
from vlm_assets.monitoring.drift import DRIFTED

DRIFT_REPORT, EVAL_REPORT = dg.AssetKey("drift_report"), dg.AssetKey("eval_report")
RELEASED_MODEL = dg.AssetKey("released_model")
MAX_RELEASES = 200  # materializations of released_model looked through for the champion's first


def asset_samples(instance: dg.DagsterInstance) -> Iterator[Sample]:
    """When each asset was made, and every number in its metadata: what an asset reports is a metric by that."""
    for key in instance.all_asset_keys():
        event = instance.get_latest_materialization_event(key)
        if event is None or event.asset_materialization is None:
            continue
        asset = key.to_user_string()
        yield Sample("vlm_asset_materialized_timestamp_seconds", event.timestamp, (asset,))
        values = _values(event.asset_materialization)
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                yield Sample("vlm_asset_metadata", float(value), (asset, name.removeprefix("dagster/")))
        if key == DRIFT_REPORT:
            yield from _drift(values)


def _drift(values: Mapping[str, Any]) -> Iterator[Sample]:
    yield Sample("vlm_drift_judged", float(values.get("p_value") is not None))
    yield Sample("vlm_drift_drifted", float(values.get("verdict") == DRIFTED))
    for name in ("p_value", "effect_size"):
        if values.get(name) is not None:
            yield Sample(f"vlm_drift_{name}", float(values[name]))


def champion_samples(instance: dg.DagsterInstance) -> Iterator[Sample]:
    """Since when the present bundle is champion: the oldest of the materializations in a row that name it.

    Releasing the champion once more makes it no younger.
    """
    since: tuple[str, float] | None = None
    for record in instance.fetch_materializations(RELEASED_MODEL, limit=MAX_RELEASES).records:  # the newest first
        bundle = str(_values(record.asset_materialization).get("bundle_version", ""))
        if since is not None and bundle != since[0]:
            break
        since = bundle, record.timestamp
    if since is not None:
        yield Sample("vlm_champion_since_timestamp_seconds", since[1], (since[0],))


def check_samples(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> Iterator[Sample]:
    """The last execution of each check that has finished; the gate is those of eval_report together."""
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    gate: list[float] = []
    for key, record in found.items():
        event = record.event.dagster_event if record.event else None
        if event is None or record.status not in (CheckStatus.SUCCEEDED, CheckStatus.FAILED):
            continue
        evaluation: Any = event.event_specific_data
        passed = float(record.status == CheckStatus.SUCCEEDED)
        severity = evaluation.severity.value.lower()
        yield Sample("vlm_check_passed", passed, (key.asset_key.to_user_string(), key.name, severity))
        if key.asset_key == EVAL_REPORT:
            gate.append(passed)
    if gate:
        yield Sample("vlm_gate_passed", min(gate))


def _values(materialization: dg.AssetMaterialization | None) -> dict[str, Any]:
    return {name: entry.value for name, entry in materialization.metadata.items()} if materialization else {}
