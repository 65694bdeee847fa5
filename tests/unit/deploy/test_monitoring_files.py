"""Alert rules and dashboards: tested by promtool, generated from what is committed, and about metrics that exist."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring_tools import program
from vlm_assets.cli.monitoring import write_configuration
from vlm_assets.cli.settings import MonitoringPorts
from vlm_assets.exporter.gauges import GAUGES as OF_DAGSTER
from vlm_serving.telemetry import COUNTERS, GAUGES, HISTOGRAMS

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
PORTS = MonitoringPorts(prometheus=29090, alertmanager=29093, metrics=29188, node=29100, serve=28000)
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))}


def own_metrics() -> set[str]:
    histograms = {f"{name}{end}" for name in HISTOGRAMS for end in ("_bucket", "_sum", "_count")}
    return {f"{name}_total" for name in COUNTERS} | set(GAUGES) | histograms | set(OF_DAGSTER)


def expressions() -> list[str]:
    panels = [
        target["expr"] for board in DASHBOARDS.values() for panel in board["panels"] for target in panel["targets"]
    ]
    return [*panels, *(rule["expr"] for rule in RULES)]


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=PROMETHEUS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_fires_when_it_should_and_only_then():
    tested = {one["name"] for one in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]}
    assert tested == {rule["alert"] for rule in RULES}
    assert "SUCCESS" in run(program("promtool"), "test", "rules", "alerts_test.yml")


def test_every_alert_leads_to_its_page():
    said = (ROOT / "docs" / "monitoring.md").read_text()
    for rule in RULES:
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"| `{rule['alert']}` |" in said


def test_every_metric_of_ours_that_is_asked_for_is_exported():
    asked = {name for expression in expressions() for name in re.findall(r"\bvlm_[a-z0-9_]+", expression)}
    assert asked - own_metrics() == set()
    assert len(asked) > 30


def test_what_runs_here_is_the_committed_configuration_with_this_machines_places(tmp_path: Path):
    folder = write_configuration(tmp_path, PORTS, "https://hooks.example.com/T0/secret")
    run(program("promtool"), "check", "config", folder / "prometheus.yml")
    run(program("amtool"), "check-config", folder / "alertmanager.yml")
    scraping = yaml.safe_load((folder / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in scraping["scrape_configs"]}
    static = {name: job["static_configs"][0]["targets"] for name, job in jobs.items() if "static_configs" in job}
    assert static == {"captions": ["127.0.0.1:28000"], "dagster": ["127.0.0.1:29188"], "node": ["127.0.0.1:29100"]}
    assert jobs["ray"]["file_sd_configs"][0]["files"] == [f"{tmp_path}/service_logs/ray-serve-*-metrics.json"]
    assert scraping["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] == ["127.0.0.1:29093"]
    secret = folder / "alertmanager.yml"
    assert "https://hooks.example.com/T0/secret" in secret.read_text()
    assert secret.stat().st_mode & 0o777 == 0o600


def test_without_a_webhook_nothing_is_sent(tmp_path: Path):
    folder = write_configuration(tmp_path, PORTS, "")
    run(program("amtool"), "check-config", folder / "alertmanager.yml")
    assert yaml.safe_load((folder / "alertmanager.yml").read_text())["receivers"] == [{"name": "webhook"}]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_committed_dashboard_is_what_the_generator_writes(name: str):
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed: make setup-dev")
    from deploy.grafana.make_dashboards import dashboard_json
    from deploy.grafana.panels import DASHBOARDS as TEXTS

    assert dashboard_json(name) == (GRAFANA / "dashboards" / f"{name}.json").read_text()
    assert set(TEXTS) == set(DASHBOARDS)


def test_grafana_finds_the_dashboards_data_source():
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    for board in DASHBOARDS.values():
        assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
        assert len({panel["title"] for panel in board["panels"]}) == len(board["panels"])
