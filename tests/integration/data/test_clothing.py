"""The data stage on real photographs: an image folder, near duplicates, groups."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from PIL import Image

from tests.integration.data.clothing import CLOTHING, make_clothing_folder
from vlm_assets.data.assets import raw_dataset, validated_splits
from vlm_assets.data.checks import raw_expectations, split_expectations
from vlm_assets.data.dedup import near_duplicates, signature
from vlm_assets.data.tables import read_rows
from vlm_assets.resources import RefIOManager, StoreResource
from vlm_serving.images import decode_picture

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (CLOTHING / "images.csv").is_file(), reason=f"no clothing pictures in {CLOTHING}"),
]
PICTURES = 240
PRESET = Path(__file__).resolve().parents[3] / "dagster_home" / "presets" / "image_folder.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert make_clothing_folder(CLOTHING, tmp_path / "clothing", PICTURES) == PICTURES
    return tmp_path / "clothing"


def photographs(folder: Path) -> Iterator[Image.Image]:
    for file in sorted(folder.glob("*.jpg")):
        yield decode_picture(file.read_bytes())


def reencoded(quality: int) -> Callable[[Image.Image], Image.Image]:
    def copy(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return copy


def resized(percent: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((image.width * percent // 100, image.height * percent // 100))


@pytest.mark.parametrize(
    "copy", [reencoded(30), reencoded(95), resized(50), resized(200)], ids=["q30", "q95", "50", "200"]
)
def test_copies_are_found_and_strangers_are_not(folder: Path, copy: Callable[[Image.Image], Image.Image]):
    pictures = list(photographs(folder))[:80]
    signatures = [signature(image) for image in pictures] + [signature(copy(image)) for image in pictures]
    pairs = {(first, second) for first, second, _ in near_duplicates(signatures).rows()}
    copies = {(number, number + 80) for number in range(80)}
    assert copies <= pairs, "every copy is found"
    assert len(pairs - copies) <= 2, "this selection has no near duplicates of its own"


def test_the_preset_splits_a_folder_by_sender(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLM_PICTURES", str(folder))
    ops: dict[str, Any] = yaml.safe_load(PRESET.read_text())["ops"]
    ops["raw_dataset"]["config"]["source"]["image_folder"]["group_column"] = "sender"
    store = StoreResource(root=str(tmp_path / "store"))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [raw_dataset, raw_expectations, validated_splits, split_expectations],
            instance=instance,
            resources={"store": store, "io_manager": RefIOManager(store=store)},
            run_config={"ops": {name: ops[name] for name in ("raw_dataset", "validated_splits")}},
        )
    severities = {check.check_name: (check.passed, check.severity) for check in result.get_asset_check_evaluations()}
    assert all(passed or severity == dg.AssetCheckSeverity.WARN for passed, severity in severities.values())
    rows = read_rows(store.open().directory(result.output_for_node("validated_splits")) / "rows.parquet")
    assert len(rows) > 0.9 * PICTURES
    splits_of_sender: dict[str, set[str]] = {}
    for row in rows:
        splits_of_sender.setdefault(row["groups"][0], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in splits_of_sender.values())
    assert {split for splits in splits_of_sender.values() for split in splits} == {"train", "val", "test"}
    assert json.loads(rows[0]["slots"]) == []
