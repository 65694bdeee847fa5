"""Copy into the chart what it has from elsewhere: alert rules, dashboards, and the schema of the captioner's settings.

helm packs only what lies in the chart. `python tools/helm_files.py`, after a change of deploy/prometheus,
deploy/grafana or ServingConfig; tests/deploy/test_chart_files.py says when.
"""

import json
from pathlib import Path
from typing import Any

from vlm_serving.config import ServingConfig

DEPLOY = Path(__file__).parents[1] / "deploy"
CHART = DEPLOY / "helm" / "vlm-captioning"
SCHEMA = CHART / "values.schema.json"
SOURCES = {"rules": DEPLOY / "prometheus" / "alerts.yml", "dashboards": DEPLOY / "grafana" / "dashboards"}
CHARTS_OWN = ("bundle", "version", "request_log", "api_keys", "api_keys_file")  # given otherwise, or secret


def copies() -> dict[Path, str]:
    """What each file of the chart's `files` has to hold; nothing for sources that are not there."""
    found: dict[Path, str] = {}
    for room, source in SOURCES.items():
        for file in sorted(source.glob("*.json")) if source.is_dir() else [source]:
            if file.is_file():
                found[CHART / "files" / room / file.name] = file.read_text()
    return found


def settings_schema() -> dict[str, Any]:
    """JSON schema of `serve.settings`: ServingConfig's, without what the chart itself decides."""
    schema = ServingConfig.model_json_schema()
    properties = {name: _plain(one) for name, one in schema["properties"].items() if name not in CHARTS_OWN}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _plain(schema: Any) -> Any:
    """Without titles and defaults: those stand in one place."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key not in ("title", "default")}
    return [_plain(one) for one in schema] if isinstance(schema, list) else schema


def main() -> None:
    """Rewrite them."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["serve"]["properties"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=1) + "\n")
    wanted = copies()
    for room in {path.parent for path in wanted}:  # the chart's own few rules make room for those of deploy/prometheus
        for file in room.glob("*"):
            file.unlink()
    for path, text in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
