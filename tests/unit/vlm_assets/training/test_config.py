"""Settings of training: each described, bounded, with its unit; budgets; nothing declared that is not read."""

import re
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from vlm_assets.training.config import BaseModelConfig, BlipMini, FinetuneConfig, HubModel, LocalModel, PretrainConfig
from vlm_assets.training.recipe import TrainSettings

CLASSES = (FinetuneConfig, PretrainConfig, BlipMini, HubModel, LocalModel, BaseModelConfig)
# Of what a number counts, or that it is a share, a factor or a seed.
UNITS = (
    r"steps|passes|pictures|pixels|tokens|layers|heads|threads|processes|checkpoints|beams|word pieces|side|width|rank"
    r"|share|per step|factor|norm|seed|gb of"
)
FIELDS = [(settings, name) for settings in CLASSES for name in settings.model_fields if name != "kind"]


def bounds(settings: type[dg.Config], name: str) -> set[str]:
    metadata = settings.model_fields[name].metadata
    found = {kind for one in metadata for kind in ("ge", "gt", "le", "lt") if getattr(one, kind, None) is not None}
    return {"low" if kind in ("ge", "gt") else "high" for kind in found}


@pytest.mark.parametrize(("settings", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_setting_is_described_and_every_number_has_bounds_and_a_unit(settings: Any, name: str) -> None:
    field = settings.model_fields[name]
    assert field.description
    if field.annotation in (int, float):
        assert bounds(settings, name) == {"low", "high"}
        assert re.search(UNITS, field.description.lower()), field.description


def test_every_setting_of_the_trainer_comes_from_the_config_and_back() -> None:
    fields = set(TrainSettings.__dataclass_fields__)
    assert fields - set(FinetuneConfig.model_fields) == {"report_every_s"}
    assert fields - set(PretrainConfig.model_fields) == {
        "report_every_s", "prompt", "validation_pictures", "patience"  # what nothing in pretraining would read
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "steps", "epochs"),
    [({}, 600, 0), ({"steps": 7}, 7, 0), ({"epochs": 2.5}, 0, 2.5), ({"steps": 0, "epochs": 1}, 0, 1)],
)
def test_the_budget_is_steps_or_epochs_and_has_a_default(given: dict[str, Any], steps: int, epochs: float) -> None:
    settings = FinetuneConfig(**given).settings()
    assert (settings.steps, settings.epochs) == (steps, epochs)
    assert PretrainConfig(**given).settings().steps == (steps if given else 1200)


def test_epochs_of_pretraining_are_a_budget_too() -> None:
    start = BaseModelConfig(start={"blip_mini": {"pretrain": {"epochs": 3, "batch_size": 10}}}).start
    assert isinstance(start, BlipMini)
    assert start.pretrain.settings().total_steps(pairs=100) == 30


@pytest.mark.parametrize(
    ("settings", "values", "text"),
    [
        (FinetuneConfig, {"steps": 3, "epochs": 2.0}, "steps is 3 and epochs is 2: two budgets"),
        (FinetuneConfig, {"patience": 1, "validation_pictures": 0}, "patience is 1 but validation_pictures is 0"),
        (BlipMini, {"heads": 5}, "heads is 5, which does not divide width 192"),
    ],
)
def test_settings_that_contradict_each_other(settings: Any, values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        settings(**values)
