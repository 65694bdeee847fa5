"""The candidate in MLflow's registry, through a real server: its files come back whole, and failures are told."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import pytest

from tests.mlflow_server import run_mlflow
from tests.seaweed import BUCKET, run_seaweed
from tests.unit.vlm_assets.training.inputs import tiny_inputs
from vlm_assets.contracts import Recipe
from vlm_assets.errors import TrackingError
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource
from vlm_assets.store import Store
from vlm_assets.training.assets import finetuned_model
from vlm_assets.training.model_registry import set_champion_alias
from vlm_serving.bundle import open_bundle

pytestmark = pytest.mark.integration
CONFIG = {
    "steps": 10, "batch_size": 4, "precision": "fp32", "threads": 1, "attention": "fused", "golden_pictures": 1,
    "validation_pictures": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A store with all that a fine-tuning reads, and an MLflow."""

    store: Store
    uri: str

    def materialize(self, seed: int = 0) -> dg.ExecuteInProcessResult:
        names = ("tokenized_shards", "base_model", "raw_dataset")
        store = StoreResource(root=self.store.uri)
        return dg.materialize(
            [finetuned_model, *(dg.AssetSpec(name) for name in names)],
            selection=[finetuned_model],
            resources={
                "store": store,
                "tracker": TrackerResource(uri=self.uri),
                "io_manager": RefIOManager(store=store),
            },
            run_config={"ops": {"finetuned_model": {"config": {**CONFIG, "seed": seed}}}},
        )

    def bundle_version(self, result: dg.ExecuteInProcessResult) -> str:
        bundle = self.store.directory(result.output_for_node("finetuned_model")) / "bundle"
        return open_bundle(bundle).version

    @property
    def client(self) -> mlflow.MlflowClient:
        mlflow.set_tracking_uri(self.uri)
        return mlflow.MlflowClient(self.uri)

    def runs(self) -> list[Any]:
        experiment = self.client.get_experiment_by_name("captioner")
        return self.client.search_runs([experiment.experiment_id])


def fill(root: str, folder: Path) -> Store:
    """A store that holds the artifacts of a tiny fine-tuning, as runs before left them."""
    store, inputs = Store(root), tiny_inputs(folder)
    for name, path in (
        ("base_model", inputs.base), ("tokenized_shards", inputs.shards), ("raw_dataset", inputs.raw),
    ):  # fmt: skip

        def write(draft: Any, path: Path = path) -> None:
            shutil.copytree(path, draft.path, dirs_exist_ok=True)

        ref = store.build(Recipe(name, "1"), write).ref
        store.backend.write_text(f"refs/{name}/last.json", json.dumps(ref.to_json()))
    return store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_mlflow(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


def fetched(place: Place, number: str, folder: Path) -> str:
    """Version of the bundle that MLflow hands out under the alias."""
    mlflow.set_tracking_uri(place.uri)
    return open_bundle(mlflow.artifacts.download_artifacts(f"models:/captioner/{number}", dst_path=str(folder))).version


def test_a_server_keeps_the_bundle_and_hands_it_out_whole(server: str, tmp_path: Path) -> None:
    place = Place(fill(str(tmp_path / "store"), tmp_path / "inputs"), server)
    first = place.materialize()
    metadata = first.asset_materializations_for_node("finetuned_model")[0].metadata
    number = str(metadata["mlflow_model_version"].value)
    (tmp_path / "fetched").mkdir()
    assert fetched(place, number, tmp_path / "fetched") == place.bundle_version(first)
    version = place.client.get_model_version("captioner", number)
    run = place.client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["bundle"] == version.source
    assert {"bundle", "curves.png"} <= {file.path for file in place.client.list_artifacts(version.run_id)}
    assert set_champion_alias(server, first.output_for_node("finetuned_model").version) == number

    again = place.materialize()  # nothing is trained, uploaded or registered twice
    metadata = again.asset_materializations_for_node("finetuned_model")[0].metadata
    assert str(metadata["mlflow_model_version"].value) == number
    assert len(place.runs()) == 1


def test_a_bundle_in_a_store_on_s3_is_registered_where_it_is(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    with run_seaweed(tmp_path) as s3:
        for name, value in s3.environment().items():
            monkeypatch.setenv(name, value)
        place = Place(fill(f"s3://{BUCKET}/registry", tmp_path / "inputs"), server)
        result = place.materialize(seed=1)  # another model than the one that the server has already
        metadata = result.asset_materializations_for_node("finetuned_model")[0].metadata
        version = place.client.get_model_version("captioner", str(metadata["mlflow_model_version"].value))
        assert version.source == f"{result.output_for_node('finetuned_model').uri}/bundle"
        assert version.source.startswith(f"s3://{BUCKET}/registry/")
        assert "bundle" not in {file.path for file in place.client.list_artifacts(version.run_id)}
        (tmp_path / "fetched").mkdir()
        assert fetched(place, version.version, tmp_path / "fetched") == place.bundle_version(result)


def test_a_registry_that_refuses_ends_the_run_failed_and_costs_no_second_training(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    place = Place(fill(str(tmp_path / "store"), tmp_path / "inputs"), f"sqlite:///{database}")
    _ = place.client.search_experiments()  # makes the database
    with sqlite3.connect(database) as broken:
        broken.execute("ALTER TABLE model_versions RENAME TO hidden")
    with pytest.raises(
        TrackingError, match=r"registry at sqlite:.* does not take the model: .*nothing is trained twice"
    ):
        place.materialize()
    (run,) = place.runs()
    assert run.info.status == "FAILED"
    assert run.data.metrics["finetune/train_loss"] > 0  # the training itself had ended well
    with sqlite3.connect(database) as mended:
        mended.execute("ALTER TABLE hidden RENAME TO model_versions")
    result = place.materialize()
    (version,) = place.client.search_model_versions("name='captioner'")
    assert version.tags["bundle_version"] == place.bundle_version(result)
    assert "finetune/train_loss" not in place.client.get_run(version.run_id).data.metrics
