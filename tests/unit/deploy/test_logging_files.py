"""Log lines, index template, shippers and Kibana's objects name the same fields and places, all of them ECS' own."""

import json
import logging
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.monitoring_tools import rsyslog_command, write_rsyslog_configuration
from tests.unit.vlm_assets.logs.test_lines import FAILED, records
from vlm_serving.ecs import ECS_VERSION, NAMES, EcsFormatter

FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "logging"
TABLE = json.loads((FOLDER / "ecs_fields.json").read_text())
FIELDS: dict[str, dict[str, str]] = TABLE["fields"]
TEMPLATE = json.loads((FOLDER / "index-template.json").read_text())
OBJECTS = [json.loads(line) for line in (FOLDER / "kibana" / "dashboard.ndjson").read_text().splitlines()]
KINDS: dict[str, tuple[type, ...]] = {"long": (int,), "date": (str,), "keyword": (str,), "match_only_text": (str,),
    "wildcard": (str,)}  # fmt: skip
INDEX = "logs-vlm-default"


def lines() -> list[dict[str, Any]]:
    """One line of each program, with every field that it can have."""
    try:
        raise ValueError("no")
    except ValueError as error:
        caught = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("vlm_serving", logging.ERROR, "f", 1, "request", (), caught)
    record.fields = {**dict.fromkeys(NAMES, "x"), "status": 415, "duration_ms": 1.5, "bundle": "5eed"}
    dagsters = {"event": "ticked", "logger": "dagster.daemon", "level": "info", "timestamp": "2026-11-27T18:32:58Z"}
    return [json.loads(EcsFormatter().format(record)), *records(FAILED), *records(json.dumps(dagsters))]


def mapped(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, mapping in properties.items():
        if "properties" in mapping:
            yield from mapped(mapping["properties"], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", mapping["type"]


def test_every_field_of_every_line_is_ecs_own_and_of_its_type():
    assert TABLE["version"] == ECS_VERSION
    seen: set[str] = set()
    for line in lines():
        for name, value in line.items():
            if not name.startswith("labels."):
                assert isinstance(value, KINDS[FIELDS[name]["type"]]), (name, value)
            else:
                assert isinstance(value, str), (name, value)
            seen.add(name)
    assert {*NAMES.values(), "event.duration", "error.stack_trace", "event.action", "log.logger"} <= seen


def test_the_index_template_gives_each_field_the_type_of_ecs():
    types = dict(mapped(TEMPLATE["template"]["mappings"]["properties"]))
    assert types == {name: spec["type"] for name, spec in FIELDS.items()}
    assert TEMPLATE["data_stream"] == {}


def test_shippers_template_policy_and_kibana_mean_the_same_data_stream():
    filebeat = yaml.safe_load((FOLDER / "filebeat.yml").read_text())
    assert filebeat["output.elasticsearch"]["index"] == INDEX
    assert f'searchIndex="{INDEX}"' in (FOLDER / "rsyslog.conf").read_text()
    assert TEMPLATE["index_patterns"] == ["logs-vlm-*"]
    (view,) = [one for one in OBJECTS if one["type"] == "index-pattern"]
    assert view["attributes"]["title"] == "logs-vlm-*"
    assert TEMPLATE["template"]["settings"]["index.lifecycle.name"] == "vlm-logs"
    assert set(json.loads((FOLDER / "ilm-policy.json").read_text())["policy"]["phases"]) == {"hot", "warm", "delete"}


def test_kibanas_objects_refer_to_each_other_and_to_fields_that_there_are():
    known = {(one["type"], one["id"]) for one in OBJECTS}
    for one in OBJECTS:
        assert {(ref["type"], ref["id"]) for ref in one["references"]} <= known
        named = list(one["attributes"].get("columns", []))
        state = json.loads(one["attributes"].get("visState", "{}"))
        named += [aggregate["params"]["field"] for aggregate in state.get("aggs", []) if "field" in aggregate["params"]]
        assert {name for name in named if not name.startswith("labels.")} <= set(FIELDS)
    (dashboard,) = [one for one in OBJECTS if one["type"] == "dashboard"]
    names = {ref["name"] for ref in dashboard["references"]}
    panels = json.loads(dashboard["attributes"]["panelsJSON"])
    assert names == {f"{panel['panelIndex']}:{panel['panelRefName']}" for panel in panels}


def test_rsyslog_accepts_its_configuration(tmp_path: Path):
    file = write_rsyslog_configuration(tmp_path, tmp_path, 9200)
    command, environment = rsyslog_command()
    checked = subprocess.run(
        [*command, "-N1", "-f", file], capture_output=True, text=True, env=environment, check=False
    )
    assert checked.returncode == 0, checked.stderr
