"""What Prometheus reads of a Dagster instance: real runs, checks and ticks in, samples out."""

import dagster as dg
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from vlm_assets.definitions import defs
from vlm_assets.exporter.gauges import GAUGES, Sample, families
from vlm_assets.exporter.server import DagsterCollector


@dg.op(config_schema={"fail": dg.Field(bool, default_value=False)})
def learn(context: dg.OpExecutionContext) -> None:
    if context.op_config["fail"]:
        raise RuntimeError("no GPU")


@dg.job
def retrain():
    learn()


def run(instance: dg.DagsterInstance, fail: bool) -> None:
    config = {"ops": {"learn": {"config": {"fail": fail}}}}
    retrain.execute_in_process(run_config=config, instance=instance, raise_on_error=False)


def report(instance: dg.DagsterInstance, asset: str, **metadata: object) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))


def check(instance: dg.DagsterInstance, name: str, passed: bool) -> None:
    evaluation = dg.AssetCheckEvaluation(dg.AssetKey("eval_report"), name, passed=passed, metadata={})
    instance.report_runless_asset_event(evaluation)


@pytest.fixture
def instance():
    with dg.instance_for_test() as opened:
        yield opened


def values(instance: dg.DagsterInstance) -> dict[tuple[str, ...], float]:
    keys = list(defs.resolve_asset_graph().asset_check_keys)
    return {(one.name, *one.labels): one.value for one in DagsterCollector(instance, keys).samples()}


def test_a_failed_retraining_shows_until_the_next_one_succeeds(instance):
    run(instance, fail=False)
    run(instance, fail=True)
    failed = values(instance)
    assert failed["vlm_dagster_last_run_ok", "retrain"] == 0
    assert failed["vlm_dagster_runs", "retrain", "failure"] == 1
    ended_s = failed["vlm_dagster_last_run_end_timestamp_seconds", "retrain"]
    assert failed["vlm_dagster_last_success_timestamp_seconds", "retrain"] < ended_s
    assert failed["vlm_dagster_run_seconds_30d", "retrain"] > 0
    run(instance, fail=False)
    mended = values(instance)
    assert mended["vlm_dagster_last_run_ok", "retrain"] == 1
    assert mended["vlm_dagster_last_success_timestamp_seconds", "retrain"] > ended_s


def test_drift_is_judged_or_not(instance):
    report(instance, "drift_report", verdict="not enough traffic (0 < 50)", n_traffic=0)
    short = values(instance)
    assert (short["vlm_drift_judged",], short["vlm_drift_drifted",]) == (0, 0)
    assert ("vlm_drift_effect_size",) not in short
    report(instance, "drift_report", verdict="drifted", n_traffic=120, p_value=0.002, effect_size=3.37)
    drifted = values(instance)
    assert (drifted["vlm_drift_judged",], drifted["vlm_drift_drifted",]) == (1, 1)
    assert (drifted["vlm_drift_effect_size",], drifted["vlm_drift_p_value",]) == (3.37, 0.002)
    assert drifted["vlm_asset_metadata", "drift_report", "n_traffic"] == 120


def test_releasing_the_champion_again_makes_it_no_younger(instance):
    report(instance, "released_model", bundle_version="old")
    report(instance, "released_model", bundle_version="new")
    first = values(instance)["vlm_champion_since_timestamp_seconds", "new"]
    report(instance, "released_model", bundle_version="new")
    now = values(instance)
    assert now["vlm_champion_since_timestamp_seconds", "new"] == first
    assert now["vlm_asset_materialized_timestamp_seconds", "released_model"] > first
    assert ("vlm_champion_since_timestamp_seconds", "old") not in now


def test_one_refused_check_closes_the_gate(instance):
    for name in ("beats_baselines", "no_collapse"):
        check(instance, name, passed=True)
    assert values(instance)["vlm_gate_passed",] == 1
    check(instance, "no_collapse", passed=False)
    after = values(instance)
    assert after["vlm_gate_passed",] == 0
    assert after["vlm_check_passed", "eval_report", "beats_baselines", "error"] == 1
    assert after["vlm_check_passed", "eval_report", "no_collapse", "error"] == 0


def test_an_empty_instance_is_no_error(instance):
    names = {name for name, *_ in values(instance)}
    assert names <= set(GAUGES)
    assert "vlm_dagster_last_run_ok" not in names


def test_the_text_is_prometheus_own(instance):
    run(instance, fail=True)
    registry = CollectorRegistry()
    registry.register(DagsterCollector(instance, []))
    lines = generate_latest(registry).decode().splitlines()
    assert 'vlm_dagster_last_run_ok{dagster_job="retrain"} 0.0' in lines
    assert "# TYPE vlm_dagster_last_run_ok gauge" in lines


def test_a_label_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match=r"runs has the labels \('dagster_job', 'status'\), not values \('a',\)"):
        list(families([Sample("vlm_dagster_runs", 1, ("a",))]))


def test_no_label_is_one_that_prometheus_gives_itself():
    """It would be renamed to exported_job, and no rule would ever find it."""
    assert not {label for _, labels in GAUGES.values() for label in labels} & {"job", "instance"}
