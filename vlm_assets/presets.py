"""Presets: run configs for the whole chain, one file per kind of data set, chosen by VLM_PRESET."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vlm_assets.errors import ConfigError

PRESETS = Path(__file__).parent.parent / "dagster_home" / "presets"


def preset_config(without: Sequence[str] = (), only: Sequence[str] = ()) -> dict[str, Any] | None:
    """Run config of the preset that VLM_PRESET names (a name, or a path to a YAML file); None if it is not set.

    `without` leaves out assets that a job does not have, `only` all others. Raises ConfigError naming
    the presets there are.
    """
    name = os.environ.get("VLM_PRESET", "")
    if not name:
        return None
    config = read_preset(preset_path(name))
    ops = {
        asset: value
        for asset, value in config.get("ops", {}).items()
        if asset not in without and (asset in only or not only)
    }
    return {**config, "ops": ops}


def preset_path(name: str) -> Path:
    """The file of a preset given by name or by path."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if path.is_file():
            return path
        raise ConfigError(f"VLM_PRESET is {name!r}, and there is no such file.")
    path = PRESETS / f"{name}.yaml"
    if path.is_file():
        return path
    known = sorted(file.stem for file in PRESETS.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, 1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"VLM_PRESET is {name!r}, which is no preset. {hint}There are: {', '.join(known)}.")


def read_preset(path: Path) -> dict[str, Any]:
    """Read a preset; ConfigError if it is not a YAML mapping."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no run config: it must start with `ops:`.")
    return value
