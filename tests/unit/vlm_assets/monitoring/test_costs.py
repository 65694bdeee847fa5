"""Costs: time in work counts once however many requests share it; the asset reads the real history."""

import dagster as dg
import pytest

from vlm_assets.monitoring.assets import request_log
from vlm_assets.monitoring.cost_assets import cost_report
from vlm_assets.monitoring.costs import RunTime, busy_time, cost_summary, job_table
from vlm_assets.resources import RefIOManager, StoreResource


@pytest.mark.parametrize(
    ("answered_s", "latency_ms", "busy_s", "span_s"),
    [
        ([], [], 0.0, 0.0),
        ([10.0], [2000], 2.0, 2.0),
        ([10.0, 20.0], [2000, 2000], 4.0, 12.0),
        ([10.0, 11.0], [2000, 2000], 3.0, 3.0),
        ([10.0, 9.5], [5000, 1000], 5.0, 5.0),
    ],
)
def test_time_in_work_counts_once(answered_s, latency_ms, busy_s, span_s):
    assert busy_time(answered_s, latency_ms) == (pytest.approx(busy_s), pytest.approx(span_s))


def test_jobs_are_listed_by_what_they_cost():
    runs = [RunTime("monitor", 5), RunTime("retrain", 100, devices=2), RunTime("monitor", 7)]
    assert job_table(runs) == [
        {"job": "retrain", "runs": 1, "median_device_s": 200, "total_device_s": 200},
        {"job": "monitor", "runs": 2, "median_device_s": 6, "total_device_s": 12},
    ]


def test_figures_per_thousand_captions(requests):
    summary = cost_summary([], requests(500), [1.0] * 19 + [9.0])
    assert summary["busy_s_per_1000_captions"] == pytest.approx(40.0)  # 40 ms each, a second apart
    assert summary["idle_share"] == pytest.approx(1 - 20 / 499.04)
    assert summary["cold_start_p95_s"] == pytest.approx(1.4)
    nothing = cost_summary([], requests(0), [])
    assert nothing["idle_share"] is nothing["cold_start_p95_s"] is nothing["busy_s_per_1000_captions"] is None


def test_the_report_counts_runs_and_deployments_of_the_history(tmp_path, monkeypatch):
    monkeypatch.setenv("VLM_REQUEST_LOG", str(tmp_path / "log"))
    store = StoreResource(root=str(tmp_path / "store"))
    resources = {"store": store, "io_manager": RefIOManager(store=store)}

    @dg.asset
    def serving_app() -> None:
        """Stands for a deployment."""

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([serving_app], instance=instance, resources={})
        result = dg.materialize([request_log, cost_report], instance=instance, resources=resources)
    metadata = result.asset_materializations_for_node("cost_report")[0].metadata
    assert metadata["captions"].value == 0
    assert metadata["cold_start_p95_s"].value >= 0
    assert [row.data["runs"] for row in metadata["jobs"].records] == ["1"]
    assert metadata["plot"].value.startswith("![costs]")
