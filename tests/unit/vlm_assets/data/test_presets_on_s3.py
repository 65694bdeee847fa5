"""Presets whose path is `s3://`: the asset imports from there, reuses what is unchanged, and sees what changes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from tests.unit.vlm_assets.data.pictures import write_folder
from tests.unit.vlm_assets.data.sources.formats import jpeg, pairs, write_coco, write_webdataset
from tests.unit.vlm_assets.data.sources.places import Place, s3_in_memory
from vlm_assets.data.assets import raw_dataset
from vlm_assets.data.tables import read_rows
from vlm_assets.presets import PRESETS, read_preset
from vlm_assets.resources import RefIOManager, StoreResource

PICTURES = 6
Writer = Callable[[Path], Path]


def write_pictures(root: Path) -> Path:
    return write_folder(root, [{"file_name": f"{n}.png", "text": f"picture number {n}"} for n in range(PICTURES)])


def write_table(root: Path) -> Path:
    write_pictures(root / "images")
    lines = "".join(f"{n}.png,picture number {n},{n}\n" for n in range(PICTURES))
    (root / "items.csv").write_text(f"picture,description,product\n{lines}")
    (root / "images" / "metadata.jsonl").unlink()
    return root


KINDS: dict[str, tuple[str, Writer]] = {
    "image_folder": ("VLM_PICTURES", write_pictures),
    "table": ("VLM_TABLE", write_table),
    "coco": ("VLM_COCO", lambda root: write_coco(root, pairs(PICTURES))),
    "webdataset": ("VLM_WEBDATASET", lambda root: write_webdataset(root, pairs(PICTURES), shard_samples=4)),
}


@pytest.fixture
def bucket() -> Iterator[Place]:
    with s3_in_memory() as place:
        yield place


def materialize(kind: str, store: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The metadata of raw_dataset, made by the preset as it stands, and its rows."""
    opened = StoreResource(root=str(store))
    ops = read_preset(PRESETS / f"{kind}.yaml")["ops"]
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [raw_dataset],
            instance=instance,
            resources={"store": opened, "io_manager": RefIOManager(store=opened)},
            run_config={"ops": {"raw_dataset": ops["raw_dataset"]}},
        )
    metadata = result.asset_materializations_for_node("raw_dataset")[0].metadata
    rows = read_rows(opened.open().directory(result.output_for_node("raw_dataset")) / "rows.parquet")
    return {name: value.value for name, value in metadata.items()}, rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_preset_imports_from_s3(tmp_path: Path, bucket: Place, monkeypatch: pytest.MonkeyPatch, kind: str):
    variable, write = KINDS[kind]
    folder = write(tmp_path / "set")
    bucket.put_folder(folder)
    monkeypatch.setenv(variable, bucket.root)
    first, rows = materialize(kind, tmp_path / "store")
    monkeypatch.setenv(variable, str(folder))
    assert rows == materialize(kind, tmp_path / "local")[1], "the very rows of the folder"
    assert len(rows) == first["dagster/row_count"] == PICTURES

    monkeypatch.setenv(variable, bucket.root)
    again, _ = materialize(kind, tmp_path / "store")
    assert (first["reused"], again["reused"]) == (False, True)
    assert again["version"] == first["version"]


def test_a_picture_that_changes_on_s3_makes_another_version(
    tmp_path: Path, bucket: Place, monkeypatch: pytest.MonkeyPatch
):
    bucket.put_folder(write_pictures(tmp_path / "set"))
    monkeypatch.setenv("VLM_PICTURES", bucket.root)
    first, _ = materialize("image_folder", tmp_path / "store")
    bucket.put("0.png", jpeg(99))
    changed, rows = materialize("image_folder", tmp_path / "store")
    assert changed["version"] != first["version"] and not changed["reused"]
    assert {row["file_name"]: row["format"] for row in rows}["0.png"] == "JPEG"
