"""The asset graph against its golden copy: every key, dependency, group, kind, check, job, sensor and schedule.

A change on purpose: `UPDATE_GOLDEN=1 pytest tests/unit/test_asset_graph.py`, then read the diff.
"""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "asset_graph.json"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    from vlm_assets.definitions import defs

    return defs


def graph(defs: dg.Definitions) -> dict[str, Any]:
    """The graph as plain data, in a stable order."""
    assets = defs.resolve_asset_graph()
    return {
        "assets": {key.to_user_string(): asset(assets.get(key)) for key in sorted(assets.get_all_asset_keys())},
        "checks": {check.to_user_string(): assets.get(check).blocking for check in sorted(assets.asset_check_keys)},
        "jobs": sorted(job.name for job in defs.jobs or []),
        "sensors": {sensor.name: sensor.default_status.value for sensor in defs.sensors or []},
        "schedules": {one.name: one.cron_schedule for one in defs.schedules or []},
    }


def asset(node: Any) -> dict[str, Any]:
    return {
        "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
        "group": node.group_name,
        "kinds": sorted(node.kinds),
        "owners": sorted(node.owners),
    }


def test_the_graph_is_the_golden_one(defs: dg.Definitions):
    current = graph(defs)
    if UPDATE:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(current, indent=2) + "\n")
    assert current == json.loads(GOLDEN.read_text())


def test_everything_is_described_owned_and_versioned(defs: dg.Definitions):
    for key in defs.resolve_asset_graph().materializable_asset_keys:
        node = defs.resolve_asset_graph().get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key
        assert node.code_version, key
        assert not node.is_partitioned, f"{key}: `--select '*'` would need a --partition"


def test_the_weekly_evaluation_reads_the_source_anew_and_no_release_waits_for_it(defs: dg.Definitions):
    jobs = {name: defs.resolve_job_def(name) for name in ("captioner", "retrain", "evaluate")}
    made = {name: {key.to_user_string() for key in job.asset_layer.executable_asset_keys} for name, job in jobs.items()}
    assert made["evaluate"] == {
        "feedback_captions", "raw_dataset", "validated_splits", "base_model", "tokenized_shards", "champion_report",
    }  # fmt: skip
    assert "champion_report" not in made["captioner"] | made["retrain"]
    schedules = {one.name: one.job_name for one in defs.schedules or [] if isinstance(one, dg.ScheduleDefinition)}
    assert schedules["evaluation_schedule"] == "evaluate"


def test_selection_strings_parse():
    """They do not if an antlr4 runtime below 4.13 got installed, which DVC's stack asks for."""

    @dg.asset
    def x():
        return 1

    job = dg.define_asset_job("j", "*")
    resolved = dg.Definitions(assets=[x], jobs=[job]).resolve_job_def("j")
    assert resolved.asset_layer.executable_asset_keys == {dg.AssetKey("x")}


def test_the_definitions_load(defs: dg.Definitions):
    dg.Definitions.validate_loadable(defs)
