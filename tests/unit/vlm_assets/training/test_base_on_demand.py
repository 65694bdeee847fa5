"""Shards alone: the base model that they need is the one described, the last one made, or made on the way."""

from pathlib import Path

import dagster as dg
import pytest

from vlm_assets.data.assets import raw_dataset, tokenized_shards, validated_splits
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource
from vlm_assets.training.assets import base_model

SOURCE = {"openmoji": {"size_px": 32}}
PRETRAIN = {"steps": 2, "batch_size": 4, "attention": "stock", "threads": 1}


def materialize(
    home: Path, selection: list, base: dict | None, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    store = StoreResource(root=str(home / "store"))
    config: dict = {"ops": {"raw_dataset": {"config": {"source": SOURCE}}}}
    if base is not None:
        config["ops"]["base_model"] = {"config": {"start": {"blip_mini": {**base, "pretrain": PRETRAIN}}}}
    definitions = dg.Definitions(
        assets=[raw_dataset, validated_splits, tokenized_shards, base_model],
        resources={
            "store": store,
            "tracker": TrackerResource(uri=f"sqlite:///{home}/mlflow.db"),
            "io_manager": RefIOManager(store=store),
        },
    )
    job = definitions.resolve_implicit_global_asset_job_def()  # what `dagster asset materialize` runs
    keys = [asset.key for asset in selection]
    return job.execute_in_process(run_config=config, instance=instance, asset_selection=keys)


def image_size(result: dg.ExecuteInProcessResult) -> int:
    events = result.asset_materializations_for_node("tokenized_shards")  # also the base model that it made on the way
    (event,) = [event for event in events if event.asset_key == tokenized_shards.key]
    return int(event.metadata["image_size_px"].value)  # pyright: ignore


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


SHARDS = [raw_dataset, validated_splits, tokenized_shards]
SMALL = {"image_size_px": 32, "width": 32, "heads": 2, "vision_layers": 1, "text_layers": 1, "vocab_size": 400}


def test_shards_alone_make_the_base_model_that_the_config_describes(
    tmp_path: Path, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
):
    first = materialize(tmp_path, SHARDS, SMALL, instance)
    assert image_size(first) == 32
    before, _, after = capfd.readouterr().err.partition("is not there yet and is made now, for this and later runs: ")
    assert after.startswith("pretraining takes minutes, and the lines below say how long still")
    assert "pretrain" not in before, "said before it begins"
    made = instance.get_latest_materialization_event(dg.AssetKey("base_model"))
    assert made is not None  # the UI shows it, too
    other = materialize(tmp_path, [tokenized_shards], {**SMALL, "image_size_px": 48}, instance)
    assert image_size(other) == 48  # as described, and not the last one made
    undescribed = materialize(tmp_path, [tokenized_shards], None, instance)
    assert image_size(undescribed) == 48  # the last one
    described_again = materialize(tmp_path, [tokenized_shards], SMALL, instance)
    assert image_size(described_again) == 32
    assert len(list((tmp_path / "store" / "base_model").iterdir())) == 2  # the first was reused


def test_a_run_that_makes_the_base_model_uses_that_one(tmp_path: Path, instance: dg.DagsterInstance):
    assert image_size(materialize(tmp_path, [*SHARDS, base_model], SMALL, instance)) == 32
