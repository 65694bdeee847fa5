"""CRDs as strict JSON schemas: unknown keys are faults. Rules in CEL are not checked; the API server does that."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml


@cache
def validator(file: Path, version: str) -> jsonschema.Draft7Validator:
    """Of one version of the kind that the CRD in `file` defines."""
    crd = yaml.load(file.read_text(), Loader=yaml.CSafeLoader)
    (found,) = (one for one in crd["spec"]["versions"] if one["name"] == version)
    return jsonschema.Draft7Validator(strict(found["schema"]["openAPIV3Schema"]))


def strict(schema: Any) -> Any:
    """OpenAPI as Kubernetes writes it -> JSON schema that takes no unknown keys."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    out = {key: strict(value) for key, value in schema.items() if key not in ("properties", "format", "description")}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        out["properties"] = {name: strict(one) for name, one in properties.items()}
        if "required" in out:  # what has a default may be left out
            out["required"] = [name for name in out["required"] if "default" not in properties.get(name, {})]
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            out["additionalProperties"] = False
    return out


def faults(one: dict[str, Any], file: Path) -> list[str]:
    """`path: what` of each place that the CRD refuses."""
    schema = validator(file, one["apiVersion"].rpartition("/")[2])
    # an object's own metadata is the API server's matter: the CRD says only that it is an object
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in schema.iter_errors({**one, "metadata": {}})
    ]
