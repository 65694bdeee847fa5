"""Write the settings of the captioner into the chart's values.schema.json, as vlm_serving/config.py has them.

`python tools/helm_schema.py`, after a change of ServingConfig; tests/deploy/test_chart_settings.py says when.
"""

import json
from pathlib import Path
from typing import Any

from vlm_serving.config import ServingConfig

SCHEMA = Path(__file__).parents[1] / "deploy" / "helm" / "vlm-captioning" / "values.schema.json"
CHARTS_OWN = ("bundle", "version", "request_log", "api_keys", "api_keys_file")  # given otherwise, or secret


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
    """Rewrite the file."""
    schema = json.loads(SCHEMA.read_text())
    schema["properties"]["serve"]["properties"]["settings"] = settings_schema()
    SCHEMA.write_text(json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    main()
