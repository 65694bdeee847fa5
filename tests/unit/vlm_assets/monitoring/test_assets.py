"""The assets in Dagster, on a real store, fed by what serving wrote."""

import shutil
import time

import dagster as dg
import numpy as np
import pytest

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.monitoring.assets import drift_report, request_log
from vlm_assets.monitoring.checks import no_drift
from vlm_assets.monitoring.config import DriftConfig, RequestLogConfig, RetrainPolicy
from vlm_assets.monitoring.findings import DATA_VERSION_TAG, RELEASED_MODEL, latest_finding
from vlm_assets.monitoring.sensors import build_drift_sensor
from vlm_assets.resources import RefIOManager, StoreResource
from vlm_serving.request_log import LogRow, RequestLog

CALM = {"seed": 4}
LATE = {"shift": 1.0, "seed": 3, "minutes_ago": 60}
ONE_LOOK = {"alpha": 0.01, "windows": 1, "permutations": 999}


@dg.op
def nothing() -> None:
    """Stands for the whole chain."""


@dg.job
def retrain() -> None:
    """Stands for the retraining job."""
    nothing()


@pytest.fixture
def store(tmp_path):
    return StoreResource(root=str(tmp_path / "store"))


@pytest.fixture
def serve(tmp_path, requests, monkeypatch):
    """Writes `count` requests of just now into the request log."""
    monkeypatch.setenv("VLM_REQUEST_LOG", str(tmp_path / "log"))

    def write(count, minutes_ago=1, **options):
        log = RequestLog(tmp_path / "log", flush_s=0.01)
        times = time.time() - 60 * minutes_ago + np.arange(count) / max(count, 1)
        rows = requests(count, time_unix_s=times, **options).to_pylist()
        log.append([LogRow(**{**row, "embedding": np.asarray(row["embedding"])}) for row in rows])
        log.close()

    return write


@pytest.fixture
def monitor(store, released):
    """Materializes the monitoring group once, into the given instance; returns the result."""

    @dg.asset
    def released_model():
        recipe = Recipe("released_model", "1")
        built = store.open().build(recipe, lambda draft: shutil.copytree(released, draft.path, dirs_exist_ok=True))
        return dg.MaterializeResult(value=built.ref, data_version=dg.DataVersion(built.ref.version))

    def materialize(instance, **log_config):
        return dg.materialize(
            [released_model, request_log, drift_report, no_drift],
            instance=instance,
            resources={"store": store, "io_manager": RefIOManager(store=store)},
            run_config=dg.RunConfig(
                {"request_log": RequestLogConfig(**log_config), "drift_report": DriftConfig(**ONE_LOOK)}
            ),
        )

    return materialize


def metadata_of(result, asset):
    values = result.asset_materializations_for_node(asset)[0].metadata
    return {name: value.value for name, value in values.items()}


def test_drift_is_reported_warned_of_and_found_by_the_sensor(serve, monitor):
    serve(120, shift=1.0)
    with dg.DagsterInstance.ephemeral() as instance:
        result = monitor(instance)
        finding = latest_finding(instance)
        sensor = build_drift_sensor(retrain, retrain, policy=RetrainPolicy(), look=lambda: None)
        waiting = sensor(dg.build_sensor_context(instance=instance))
        tags = instance.get_latest_materialization_event(RELEASED_MODEL).asset_materialization.tags
        serve(120, shift=1.0, seed=2)
        second = metadata_of(monitor(instance), "drift_report")
        request = sensor(dg.build_sensor_context(instance=instance))
    assert result.success
    report = metadata_of(result, "drift_report")
    assert report["verdict"] == "drifted"
    assert report["p_value"] <= 0.01
    assert report["plot"].startswith("![drifted: p = 0.002 ")
    assert {row.data["feature"] for row in report["features"].records} >= {"brightness", "repetition", "size_px"}
    assert (report["windows_in_a_row"], report["confirmed"], report["judged_windows"]) == (1, False, 1)
    (check,) = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (finding.verdict, finding.p_value, finding.n_traffic) == ("drifted", report["p_value"], 120)
    assert tags[DATA_VERSION_TAG] == report["released_model_version"]
    assert waiting.skip_message.startswith("Drifted in 1 window in a row")
    assert (second["windows_in_a_row"], second["confirmed"]) == (2, True)
    assert request.run_key == f"drift-{second['reference_version']}-{second['window_id']}-1"


def test_nothing_served_yet_is_green_and_says_so(monitor, serve):
    with dg.DagsterInstance.ephemeral() as instance:
        result = monitor(instance)
        finding = latest_finding(instance)
    assert result.success
    assert metadata_of(result, "request_log")["dagster/row_count"] == 0
    assert metadata_of(result, "drift_report")["verdict"] == "not enough traffic (0 < 50)"
    assert result.get_asset_check_evaluations()[0].passed
    assert finding.p_value != finding.p_value


def test_the_same_requests_are_the_same_artifact(serve, monitor):
    serve(60)
    with dg.DagsterInstance.ephemeral() as instance:
        first, second = monitor(instance), monitor(instance)
        assert refs(first) == refs(second)
        serve(1, seed=2)
        third = monitor(instance)
    assert refs(third) != refs(first)
    assert metadata_of(third, "request_log")["dagster/row_count"] == 61


def test_every_request_is_judged_once_and_drift_in_a_row_is_confirmed(serve, monitor):
    """Reports on a log that grows: what was judged is not judged again, what came late is, repeating is no new look."""
    reports = []
    with dg.DagsterInstance.ephemeral() as instance:
        for count, options in ((60, {"shift": 1.0}), (0, {}), (20, {"shift": 1.0, "seed": 2}), (40, LATE), (70, CALM)):
            serve(count, **options)
            reports.append(metadata_of(monitor(instance), "drift_report"))
    first, repeated, few, late, calm = reports
    assert (first["verdict"], first["n_traffic"], first["windows_in_a_row"]) == ("drifted", 60, 1)
    assert (repeated["window_id"], repeated["judged_windows"]) == (first["window_id"], 1)
    assert (few["verdict"], few["windows_in_a_row"]) == ("not enough traffic (20 < 50)", 1)
    assert (late["n_traffic"], late["windows_in_a_row"], late["confirmed"]) == (60, 2, True)
    assert (calm["verdict"], calm["n_traffic"], calm["windows_in_a_row"]) == ("no drift", 70, 0)
    assert calm["judged_windows"] == 3


def test_the_window_is_configurable(serve, monitor):
    serve(60)
    with dg.DagsterInstance.ephemeral() as instance:
        assert metadata_of(monitor(instance, window_h=0.001), "request_log")["dagster/row_count"] == 0
        assert metadata_of(monitor(instance, max_rows=10), "request_log")["dagster/row_count"] == 10


def refs(result) -> list[ArtifactRef]:
    return [result.output_for_node(name) for name in ("request_log", "drift_report")]


def test_both_assets_tell_who_owns_them_and_where_they_belong():
    for asset in (request_log, drift_report):
        (key,) = asset.keys
        assert asset.group_names_by_key[key] == "monitoring"
        assert asset.owners_by_key[key] == ["team:vlm"]
    assert request_log.asset_deps[request_log.key] == {dg.AssetKey("serving_app")}
    assert drift_report.asset_deps[drift_report.key] == {dg.AssetKey("request_log"), dg.AssetKey("released_model")}
