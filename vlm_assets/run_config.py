"""What a run's config says of any asset, and all that is wrong with it, said at once and before any work.

Dagster itself refuses names and types that do not fit when a run is launched. Bounds, and settings that contradict each
other, it would find asset by asset, each when its turn has come: after hours, if the fault is in the last one.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import ValidationError

from vlm_assets.errors import ConfigError

Described = Mapping[str, Any]


def check_run_config(run_config: Described) -> None:
    """Raise ConfigError with every fault in the settings of every asset and op that the run config describes."""
    faults = [fault for name in config_classes() for fault in _faults_of(name, run_config)]
    if len(faults) == 1:
        raise ConfigError(f"The run config cannot be used: {faults[0]}")
    if faults:
        listed = "\n".join(f"  {number}. {fault}" for number, fault in enumerate(faults, start=1))
        raise ConfigError(f"{len(faults)} things must change in the run config:\n{listed}")


def config_classes() -> dict[str, type[dg.Config]]:
    """The settings of each asset and op, by its name in a run config."""
    from vlm_assets.bulk.config import BulkConfig
    from vlm_assets.data.config import RawDatasetConfig, ShardsConfig, SplitConfig
    from vlm_assets.evaluation.config import ChampionConfig, EvalConfig
    from vlm_assets.monitoring.config import DriftConfig, RequestLogConfig
    from vlm_assets.monitoring.cost_assets import CostConfig
    from vlm_assets.monitoring.feedback import FeedbackConfig
    from vlm_assets.monitoring.wishlist_assets import WishlistConfig
    from vlm_assets.release.config import PromoteConfig, ReleaseConfig, RollbackConfig
    from vlm_assets.training.config import BaseModelConfig, FinetuneConfig

    return {
        "raw_dataset": RawDatasetConfig,
        "validated_splits": SplitConfig,
        "tokenized_shards": ShardsConfig,
        "base_model": BaseModelConfig,
        "finetuned_model": FinetuneConfig,
        "eval_report": EvalConfig,
        "champion_report": ChampionConfig,
        "released_model": ReleaseConfig,
        "request_log": RequestLogConfig,
        "drift_report": DriftConfig,
        "cost_report": CostConfig,
        "feedback_captions": FeedbackConfig,
        "wanted_captions": WishlistConfig,
        "promote_version": PromoteConfig,
        "roll_back_champion": RollbackConfig,
        "caption_pictures": BulkConfig,
    }


def config_of(asset: dg.AssetKey, run_config: Described) -> dict[str, Any] | None:
    """The run config's own words about an asset, with values from the environment filled in; None if it has none.

    Raises ConfigError if a variable is not set.
    """
    name = asset.to_user_string()
    config = run_config.get("ops", {}).get(name, {}).get("config")
    return None if config is None else _without_env(config, name)


def _faults_of(name: str, run_config: Described) -> Iterator[str]:
    try:
        config = config_of(dg.AssetKey(name), run_config)
    except ConfigError as error:
        yield str(error)
        return
    if config is not None:
        yield from _faults(name, config_classes()[name], config)


def _faults(name: str, config_class: type[dg.Config], values: Described) -> Iterator[str]:
    """Faults of single settings, then contradictions among those that are left: pydantic stops after the former."""
    wrong: set[Any] = set()
    while True:
        try:
            config_class(**{key: value for key, value in values.items() if key not in wrong})
            return
        except ValidationError as error:
            found = [fault for fault in error.errors(include_url=False) if not set(fault["loc"][:1]) & wrong]
        yield from (text for fault in found for text in _said(name, fault))
        more = {fault["loc"][0] for fault in found if fault["loc"]}
        if not more:
            return
        wrong |= more


def _said(name: str, fault: Mapping[str, Any]) -> list[str]:
    """`finetuned_model.batch_size is 0: input should be greater than or equal to 1.`"""
    where = ".".join([name, *map(str, fault["loc"])])
    message: str = fault["msg"]
    if fault["type"] == "value_error":  # a validator of ours: a sentence, or one a line
        return [f"{where}: {line}" for line in message.removeprefix("Value error, ").splitlines()]
    return [f"{where} is {fault['input']!r}: {message[0].lower()}{message[1:]}."]


def _without_env(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        fields: dict[str, Any] = value
        if set(fields) == {"env"}:
            return _from_environment(str(fields["env"]), name)
        return {key: _without_env(item, name) for key, item in fields.items()}
    return value


def _from_environment(variable: str, name: str) -> str:
    if variable not in os.environ:
        raise ConfigError(f"The run config of {name} reads {variable} from the environment, where it is not set.")
    return os.environ[variable]
