"""The assets themselves: config as Dagster reads it, metadata, reuse, and checks that stop a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from PIL import Image

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import png, write_folder
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.data.assets import raw_dataset, tokenized_shards, validated_splits
from vlm_assets.data.checks import raw_expectations, split_expectations
from vlm_assets.data.config import RawDatasetConfig, SplitConfig
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource

PRESETS = Path(__file__).resolve().parents[4] / "dagster_home" / "presets"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def materialize(
    tmp_path: Path, instance: dg.DagsterInstance, run_config: dict[str, Any], **options: Any
) -> dg.ExecuteInProcessResult:
    store = StoreResource(root=str(tmp_path / "store"))
    return dg.materialize(
        [raw_dataset, raw_expectations, validated_splits, split_expectations],
        instance=instance,
        resources={"store": store, "io_manager": RefIOManager(store=store)},
        run_config=run_config,
        **options,
    )


def folder_config(path: Path, **splits: Any) -> dict[str, Any]:
    """Run config for an image folder, as it would stand in YAML."""
    text = f"ops: {{raw_dataset: {{config: {{source: {{image_folder: {{path: '{path}'}}}}}}}}}}"
    config = yaml.safe_load(text)
    config["ops"]["validated_splits"] = {"config": splits}
    return config


def folder(path: Path, count: int = 90) -> Path:
    return write_folder(path, [{"file_name": f"{n}.png", "text": f"picture number {n}"} for n in range(count)])


def metadata_of(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    event = result.asset_materializations_for_node(asset)[0]
    return {name: value.value for name, value in event.metadata.items()}


def counted(result: dg.ExecuteInProcessResult) -> int:
    """Sum of the table of splits."""
    table = result.asset_materializations_for_node("validated_splits")[0].metadata["splits"]
    assert isinstance(table, dg.TableMetadataValue)
    return sum(int(record.data["count"]) for record in table.records)  # pyright: ignore[reportArgumentType]


def test_a_folder_through_both_assets_and_checks(tmp_path: Path, instance: dg.DagsterInstance):
    result = materialize(tmp_path, instance, folder_config(folder(tmp_path / "in")))
    raw, splits = metadata_of(result, "raw_dataset"), metadata_of(result, "validated_splits")
    assert raw["dagster/row_count"] == splits["dagster/row_count"] == 90
    assert "captions" in [column.name for column in raw["dagster/column_schema"].columns]
    assert raw["dagster/uri"].startswith(str(tmp_path / "store")) and len(raw["version"]) == 16
    assert raw["contact_sheet"].startswith("![contact_sheet](data:image/webp;base64,")
    assert counted(result) == 90
    for name in ("split_balance", "caption_lengths"):
        assert splits[name].startswith(f"![{name}](data:image/png;base64,")
    assert "0.0 ± 0.0 of" in splits["leaks_avoided"], "90 pictures that nothing ties together leak nothing"
    repeated = {record.data["measure"]: record.data["share"] for record in splits["caption_repetition"].records}
    assert repeated["frequent_caption"] == "1.1 %" and repeated["boilerplate"] == "0.0 %"
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert checks["raw_expectations"].passed
    assert checks["split_expectations"].severity == dg.AssetCheckSeverity.WARN, "small splits are only warned of"
    ref = result.output_for_node("validated_splits")
    assert isinstance(ref, ArtifactRef) and sum(ref.counts.values()) == 90


def test_every_row_put_aside_is_explained_in_the_metadata(tmp_path: Path, instance: dg.DagsterInstance):
    place = folder(tmp_path / "in")
    (place / "more.png").write_bytes(png(0))
    (place / "7.png").write_bytes(b"text")
    shown = materialize(tmp_path, instance, folder_config(place)).asset_materializations_for_node("raw_dataset")[0]
    table = shown.metadata["quarantined"]
    assert isinstance(table, dg.TableMetadataValue)
    assert {record.data["reason"]: record.data["meaning"] for record in table.records} == {
        "not_a_picture": "the content is none of a picture, whatever the name says",
        "no_metadata_line": "a picture in the folder that the metadata does not name",
    }


def test_what_the_splits_drop_and_join_is_shown(tmp_path: Path, instance: dg.DagsterInstance):
    place = folder(tmp_path / "in")
    Image.new("RGB", (64, 64), "red").save(place / "5.png")
    Image.open(place / "8.png").convert("RGB").save(place / "9.png", "JPEG", quality=80)
    shown = metadata_of(materialize(tmp_path, instance, folder_config(place)), "validated_splits")
    assert {record.data["reason"]: record.data["count"] for record in shown["dropped"].records} == {"no_content": 1}
    assert shown["near_duplicate_pairs"] == 1
    for name in ("near_duplicates", "dropped_pictures"):
        assert shown[name].startswith(f"![{name}](data:image/webp;base64,")


def test_a_second_run_reuses_and_shows_the_same(tmp_path: Path, instance: dg.DagsterInstance):
    config = folder_config(folder(tmp_path / "in"))
    first, second = (materialize(tmp_path, instance, config) for _ in range(2))
    for asset in ("raw_dataset", "validated_splits"):
        one, other = metadata_of(first, asset), metadata_of(second, asset)
        assert (one.pop("reused"), other.pop("reused")) == (False, True)
        assert one == other
    (tmp_path / "in" / "0.png").write_bytes(png(500))
    changed = materialize(tmp_path, instance, config)
    assert metadata_of(changed, "raw_dataset")["version"] != metadata_of(first, "raw_dataset")["version"]


def test_the_same_folder_at_another_place_is_the_same_data_set(tmp_path: Path, instance: dg.DagsterInstance):
    first = materialize(tmp_path, instance, folder_config(folder(tmp_path / "in")))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in").rename(tmp_path / "elsewhere" / "renamed")
    config = folder_config(tmp_path / "elsewhere" / "renamed")
    moved = materialize(tmp_path, instance, config)
    assert metadata_of(moved, "raw_dataset")["reused"]
    assert metadata_of(moved, "raw_dataset")["version"] == metadata_of(first, "raw_dataset")["version"]
    config["ops"]["raw_dataset"]["config"]["source"]["image_folder"]["title"] = "Coats"
    titled = materialize(tmp_path, instance, config)
    assert metadata_of(titled, "raw_dataset")["version"] != metadata_of(first, "raw_dataset")["version"]


def test_shards_follow_the_base_models_contract(tmp_path: Path, instance: dg.DagsterInstance):
    store = StoreResource(root=str(tmp_path / "store"))

    @dg.asset
    def base_model():
        built = store.open().build(Recipe("base_model", "1"), lambda draft: tiny_bundle(draft.path / "bundle"))
        return dg.MaterializeResult(value=built.ref)

    result = dg.materialize(
        [raw_dataset, validated_splits, base_model, tokenized_shards],
        instance=instance,
        resources={"store": store, "tracker": TrackerResource(), "io_manager": RefIOManager(store=store)},
        run_config=folder_config(folder(tmp_path / "in", 60)),
    )
    metadata = metadata_of(result, "tokenized_shards")
    ref = result.output_for_node("tokenized_shards")
    assert metadata["dagster/row_count"] == sum(ref.counts.values()) == 60
    assert (metadata["image_size_px"], metadata["truncated_captions"]) == (32, 0)
    assert [column.name for column in metadata["dagster/column_schema"].columns][:2] == ["image_id", "image"]
    recipe = store.open().manifest(ref)["recipe"]
    assert set(recipe["parents"]) == {"raw_dataset", "validated_splits", "base_model"}
    assert recipe["inputs"] == {"contract_sha256": metadata["contract_sha256"]}, "the manifest says which contract"


def test_a_missing_folder_fails_the_run_with_its_name(tmp_path: Path, instance: dg.DagsterInstance):
    result = materialize(tmp_path, instance, folder_config(tmp_path / "nowhere"), raise_on_error=False)
    assert not result.success
    error = result.failure_data_for_node("raw_dataset").error
    assert "nowhere does not exist. Set source.image_folder.path" in str(error.cause or error)


def test_without_config_the_source_is_openmoji_and_two_holdouts_apply():
    assert RawDatasetConfig().source.kind == "openmoji"
    plan = SplitConfig().settings().plan
    assert [(holdout.name, holdout.slots) for holdout in plan.holdouts] == [
        ("unseen_role", ("role",)),
        ("unseen_drawing", ("role", "gender")),
    ]


@pytest.mark.parametrize("source", [{}, {"source": {"openmoji": {"subset": "general_people", "size_px": 64}}}])
def test_dagster_accepts_the_source_as_a_selector(source: dict[str, Any]):
    seen: list[RawDatasetConfig] = []

    @dg.asset
    def probe(config: RawDatasetConfig) -> None:
        seen.append(config)

    dg.materialize([probe], run_config={"ops": {"probe": {"config": source}}})
    assert seen[0].source.open().total() == (1768 if source else 650)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"source": {"nosuch": {}}}, "nosuch"),
        ({"source": {"image_folder": {}}}, "path"),
        ({"source": {"openmoji": {"size_px": 1}}}, "greater than or equal to 32"),
        ({"max_bad_fraction": 2.0}, "less than or equal to 1"),
    ],
)
def test_faulty_config_is_refused_before_anything_runs(config: dict[str, Any], message: str):
    @dg.asset
    def probe(config: RawDatasetConfig) -> None:
        raise AssertionError("ran")

    with pytest.raises(Exception, match=message):
        dg.materialize([probe], run_config={"ops": {"probe": {"config": config}}})


@pytest.mark.parametrize("name", ["openmoji", "image_folder"])
def test_presets_fit_the_assets(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLM_PICTURES", "/somewhere")
    ops = yaml.safe_load((PRESETS / f"{name}.yaml").read_text())["ops"]
    job = dg.define_asset_job("probe", [raw_dataset, validated_splits])
    defs = dg.Definitions(
        [raw_dataset, validated_splits],
        jobs=[job],
        resources={"store": StoreResource(), "io_manager": dg.mem_io_manager},
    )
    config = {"ops": {key: ops[key] for key in ("raw_dataset", "validated_splits")}}
    assert dg.validate_run_config(defs.resolve_job_def("probe"), config)


def test_the_openmoji_preset_spells_out_the_defaults():
    ops = yaml.safe_load((PRESETS / "openmoji.yaml").read_text())["ops"]
    raw = ops["raw_dataset"]["config"]
    assert {**raw["source"]["openmoji"], "kind": "openmoji"} == RawDatasetConfig().source.model_dump()
    assert raw["max_bad_fraction"] == RawDatasetConfig().max_bad_fraction
    default = SplitConfig().model_dump()
    assert {name: default[name] for name in ops["validated_splits"]["config"]} == ops["validated_splits"]["config"]
