"""The data assets under DVC and on S3: an old revision brings back the old data version, wherever the store is."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.integration.data.registry import dvc, git
from tests.seaweed import BUCKET, Seaweed
from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import png, write_folder
from vlm_assets.contracts import Recipe
from vlm_assets.data.assets import raw_dataset, tokenized_shards, validated_splits
from vlm_assets.errors import ConfigError, RegistryError
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource

pytestmark = pytest.mark.integration
PICTURES = 60


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialize(
    instance: dg.DagsterInstance,
    store_root: str,
    source: dict[str, Any],
    assets: Sequence[dg.AssetsDefinition] = (raw_dataset, validated_splits, tokenized_shards),
) -> dg.ExecuteInProcessResult:
    """Pictures to shards, with a tiny base model."""
    store = StoreResource(root=store_root)

    @dg.asset
    def base_model():
        built = store.open().build(Recipe("base_model", "1"), lambda draft: tiny_bundle(draft.path / "bundle"))
        return dg.MaterializeResult(value=built.ref)

    return dg.materialize(
        [*assets, *([base_model] if tokenized_shards in assets else [])],
        instance=instance,
        resources={"store": store, "tracker": TrackerResource(), "io_manager": RefIOManager(store=store)},
        run_config={"ops": {"raw_dataset": {"config": {"source": source}}}},
    )


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    event = result.asset_materializations_for_node(asset)[0]
    return {name: value.value for name, value in event.metadata.items()}


def data_version(result: dg.ExecuteInProcessResult, asset: str) -> str:
    return (result.asset_materializations_for_node(asset)[0].tags or {})["dagster/data_version"]


def folder(path: Path, first: int) -> dict[str, Any]:
    numbers = range(first, first + PICTURES)
    write_folder(path, [{"file_name": f"{n}.png", "text": f"picture number {n}"} for n in numbers])
    return {"image_folder": {"path": str(path)}}


def test_an_old_snapshot_gives_the_old_data_version_of_everything(
    root: Path, home: Path, instance: dg.DagsterInstance
) -> None:
    """The source has changed and the store is gone: the registry alone brings back what was."""
    source = folder(home / "in", 0)
    old = materialize(instance, str(home / "store"), source)
    tracked = metadata_of(old, "raw_dataset")
    assert tracked["dvc_hash"].endswith(".dir") and tracked["dvc_remote"].startswith("s3://")
    assert metadata_of(old, "tokenized_shards")["dvc_revision"] == git(root, "rev-parse", "HEAD").strip()
    git(root, "tag", "v1")
    (home / "in" / "0.png").write_bytes(png(500))
    new = materialize(instance, str(home / "store"), source, [raw_dataset])
    assert data_version(new, "raw_dataset") != data_version(old, "raw_dataset")
    for path in (home / "store", root / ".dvc" / "cache", root / "raw_dataset", root / "tokenized_shards"):
        shutil.rmtree(path)

    by_revision = materialize(instance, str(home / "store 2"), {"registry": {"revision": "v1"}}, [raw_dataset])
    git(root, "checkout", "--quiet", "v1")
    dvc(root, "pull", "--quiet")
    checked_out = materialize(instance, str(home / "store 3"), {"registry": {}})

    for asset in ("raw_dataset", "validated_splits", "tokenized_shards"):
        assert data_version(checked_out, asset) == data_version(old, asset)
    for again in (by_revision, checked_out):
        assert data_version(again, "raw_dataset") == data_version(old, "raw_dataset")
        restored = metadata_of(again, "raw_dataset")
        assert restored["dvc_hash"] == tracked["dvc_hash"]
        assert restored["dagster/row_count"] == tracked["dagster/row_count"] == PICTURES
    assert metadata_of(checked_out, "raw_dataset")["dvc_revision"] == tracked["dvc_revision"]
    assert metadata_of(checked_out, "tokenized_shards")["dvc_hash"] == metadata_of(old, "tokenized_shards")["dvc_hash"]


def test_the_store_on_s3_gives_the_same_versions_as_on_disk(
    root: Path, home: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, seaweed: Seaweed
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(home / "cache"))
    source, uri = folder(home / "in", 0), f"s3://{BUCKET}/store-{uuid.uuid4().hex[:8]}"
    local = materialize(instance, str(home / "store"), source, [raw_dataset])
    remote = materialize(instance, uri, source)
    assert data_version(remote, "raw_dataset") == data_version(local, "raw_dataset")
    assert metadata_of(remote, "raw_dataset")["dvc_hash"] == metadata_of(local, "raw_dataset")["dvc_hash"]
    again = materialize(instance, uri, source)
    assert all(metadata_of(again, asset)["reused"] for asset in ("raw_dataset", "tokenized_shards"))
    address = metadata_of(remote, "tokenized_shards")["dagster/uri"]
    keys = seaweed.keys(address.removeprefix(f"s3://{BUCKET}/"))
    assert any(key.endswith(".parquet") for key in keys), "the address leads to the shards"


def test_an_unknown_revision_is_one_clear_line(root: Path, home: Path, instance: dg.DagsterInstance) -> None:
    for source, message in [
        ({"registry": {"revision": "v99"}}, r"has no git revision 'v99'\. The last ones with raw_dataset: none"),
        ({"registry": {"revision": "main"}}, r"Revision main of .* holds no raw_dataset\.dvc"),
        ({"registry": {}}, r"holds no raw_dataset\.dvc\. Check out a revision that has it"),
        ({"registry": {"path": str(home)}}, r"is no data registry: it has no \.dvc\. Set source\.registry\.path"),
    ]:
        with pytest.raises((RegistryError, ConfigError), match=message):
            materialize(instance, str(home / "store"), source, [raw_dataset])
