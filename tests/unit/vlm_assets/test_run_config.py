"""Settings of a run: every fault at once, before any of its work."""

import inspect
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from vlm_assets.definitions import defs
from vlm_assets.errors import ConfigError
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource
from vlm_assets.run_config import check_run_config, config_classes, config_of


def ops(**config: dict[str, Any]) -> dict[str, Any]:
    return {"ops": {name: {"config": values} for name, values in config.items()}}


FAULTY = ops(
    validated_splits={"train_fraction": 2.0, "min_brightness": 0.9, "max_brightness": 0.1},
    base_model={"start": {"blip_mini": {"heads": 5, "pretrain": {"steps": 5, "epochs": 1.0}}}},
    finetuned_model={
        "batch_size": 0, "learning_rate": -1.0, "steps": 100, "epochs": 5.0, "patience": 2, "validation_pictures": 0,
    },
    drift_report={"permutations": 99, "alpha": 0.001},
)  # fmt: skip


def test_faults_of_all_assets_are_one_list() -> None:
    with pytest.raises(ConfigError) as error:
        check_run_config(FAULTY)
    lines = str(error.value).splitlines()
    assert lines[0] == "8 things must change in the run config:"
    said = [line.partition(". ")[2] for line in lines[1:]]
    assert said[0] == "validated_splits.train_fraction is 2.0: input should be less than or equal to 1."
    assert said[1].startswith("validated_splits: min_brightness 0.9 is above max_brightness 0.1")
    assert said[2:7] == [
        "base_model.start.blip_mini.pretrain: steps is 5 and epochs is 1: two budgets. Leave one of them out.",
        "finetuned_model.batch_size is 0: input should be greater than or equal to 1.",
        "finetuned_model.learning_rate is -1.0: input should be greater than 0.",
        "finetuned_model: steps is 100 and epochs is 5: two budgets. Leave one of them out.",
        "finetuned_model: patience is 2 but validation_pictures is 0: nothing would tell when to stop. Set "
        "validation_pictures, or patience to 0.",
    ]
    assert said[7].startswith("drift_report: alpha is 0.001 over 8760 windows, which leaves 1.14e-07 for one, but 99 p")


def test_one_fault_is_one_sentence() -> None:
    with pytest.raises(ConfigError) as error:
        check_run_config(ops(finetuned_model={"batch_size": 0}))
    assert str(error.value) == (
        "The run config cannot be used: finetuned_model.batch_size is 0: input should be greater than or equal to 1."
    )


def test_epochs_alone_are_a_budget() -> None:
    check_run_config(
        ops(finetuned_model={"epochs": 5.0}, base_model={"start": {"blip_mini": {"pretrain": {"epochs": 2}}}})
    )


def test_a_required_setting_of_the_wrong_kind_is_said_once() -> None:
    with pytest.raises(ConfigError) as error:
        check_run_config(ops(promote_version={"version": 3, "reason": "because"}))
    assert str(error.value).endswith("promote_version.version is 3: input should be a valid string.")


def test_a_variable_that_is_not_set_is_a_fault_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_NOWHERE", raising=False)
    config = ops(base_model={"start": {"directory": {"path": {"env": "VLM_NOWHERE"}}}}, eval_report={"seed": -1})
    with pytest.raises(ConfigError, match=r"base_model reads VLM_NOWHERE from the environment(?s:.*)eval_report.seed"):
        check_run_config(config)
    monkeypatch.setenv("VLM_NOWHERE", "/somewhere")
    assert config_of(dg.AssetKey("base_model"), config) == {"start": {"directory": {"path": "/somewhere"}}}


def test_every_asset_and_op_with_settings_is_known() -> None:
    """A new asset's settings must not be left out of the check."""
    found: dict[str, Any] = {}
    for job in ("captioner", "evaluate", "monitor", "ask_for_captions", "promote", "rollback", "bulk_captions"):
        for node in defs.resolve_job_def(job).all_node_defs:
            function = getattr(getattr(node, "compute_fn", None), "decorated_fn", None)
            if function is not None and "config" in inspect.signature(function).parameters:
                found[node.name] = inspect.signature(function).parameters["config"].annotation
    assert found == config_classes()


def test_unknown_settings_are_listed_when_the_run_is_launched() -> None:
    config = ops(finetuned_model={"learnin_rate": 1.0, "batchsize": 3}, eval_report={"foo": 1})
    with pytest.raises(dg.DagsterInvalidConfigError) as error:
        dg.validate_run_config(defs.resolve_job_def("captioner"), config)
    said = " ".join(one.message for one in error.value.errors)
    assert all(name in said for name in ("'batchsize'", "'learnin_rate'", '"foo"', "root:ops:finetuned_model:config"))


def test_a_run_with_a_fault_in_its_last_asset_ends_before_its_first(tmp_path: Path) -> None:
    begun: list[str] = []

    @dg.asset
    def raw_dataset(store: StoreResource) -> None:
        begun.append("raw_dataset")

    @dg.asset(deps=[raw_dataset], config_schema=dict)
    def finetuned_model(store: StoreResource) -> None:
        begun.append("finetuned_model")

    store = StoreResource(root=str(tmp_path / "store"))
    resources = {"store": store, "tracker": TrackerResource(), "io_manager": RefIOManager(store=store)}
    with pytest.raises(dg.DagsterResourceFunctionError) as error:
        dg.materialize(
            [raw_dataset, finetuned_model], resources=resources, run_config=ops(finetuned_model={"batch_size": 0})
        )
    assert isinstance(error.value.__cause__, ConfigError)
    assert "finetuned_model.batch_size is 0" in str(error.value.__cause__)
    assert begun == []
    assert not (tmp_path / "store").exists()
