"""What the chart has from elsewhere is what stands there; its alerts and dashboards reach the objects."""

import json
import runpy

import yaml

from tests.deploy.chart import CHART, ROOT, needs_helm, objects, of_kind, schema_of_values

TOOL = runpy.run_path(str(ROOT / "tools" / "helm_files.py"))
COMMAND = "run: python tools/helm_files.py"


def test_the_settings_are_those_of_the_captioner() -> None:
    assert schema_of_values()["properties"]["serve"]["properties"]["settings"] == TOOL["settings_schema"](), COMMAND


def test_rules_and_dashboards_are_those_of_deploy() -> None:
    wanted = TOOL["copies"]()
    for path, text in wanted.items():
        assert path.is_file() and path.read_text() == text, COMMAND
    for room in {path.parent for path in wanted}:
        assert set(room.glob("*")) <= set(wanted), COMMAND


@needs_helm
def test_every_rule_and_dashboard_reaches_kubernetes_as_it_is() -> None:
    found = objects("gpu-pool", "monitoring.labels.release=prometheus")
    (rules,) = of_kind(found, "PrometheusRule")
    written = [group for file in sorted((CHART / "files" / "rules").glob("*.yml"))
               for group in yaml.safe_load(file.read_text())["groups"]]  # fmt: skip
    assert written and rules["spec"]["groups"] == written  # `{{ $value }}` included: it is Prometheus' to fill in
    assert rules["metadata"]["labels"]["release"] == "prometheus"
    names = [group["name"] for group in written]
    assert len(set(names)) == len(names)  # Prometheus refuses a file with a group twice
    shown = {name: text for one in of_kind(found, "ConfigMap") if one["metadata"]["labels"].get("grafana_dashboard")
             for name, text in one["data"].items()}  # fmt: skip
    files = {file.name: json.loads(file.read_text()) for file in (CHART / "files" / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in shown.items()} == files
