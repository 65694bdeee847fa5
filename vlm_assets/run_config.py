"""What a run's config says of another asset than the one at work."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from vlm_assets.errors import ConfigError


def config_of(asset: dg.AssetKey, run_config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The run config's own words about an asset, with values from the environment filled in; None if it has none.

    Raises ConfigError if a variable is not set.
    """
    name = asset.to_user_string()
    config = run_config.get("ops", {}).get(name, {}).get("config")
    return None if config is None else _without_env(config, name)


def _without_env(value: Any, asset: str) -> Any:
    if isinstance(value, dict):
        if set(value) == {"env"}:  # pyright: ignore[reportUnknownArgumentType]
            return _from_environment(str(value["env"]), asset)  # pyright: ignore[reportUnknownArgumentType]
        return {key: _without_env(item, asset) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value


def _from_environment(name: str, asset: str) -> str:
    if name not in os.environ:
        raise ConfigError(f"The run config of {asset} reads {name} from the environment, where it is not set.")
    return os.environ[name]
