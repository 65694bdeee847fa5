"""The data stage on real photographs: an image folder, near duplicates, groups."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from tests.integration.data.clothing import CLOTHING, make_clothing_folder
from tests.integration.data.photo_copies import (
    COPIES,
    MAX_STRANGERS,
    MIN_RECALL,
    Half,
    half_of,
    joined_share,
    recall,
    side_of,
    strangers,
)
from vlm_assets.data.assets import raw_dataset, validated_splits
from vlm_assets.data.checks import raw_expectations, split_expectations
from vlm_assets.data.dedup import DEFAULT_THRESHOLDS
from vlm_assets.data.tables import read_rows
from vlm_assets.resources import RefIOManager, StoreResource

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (CLOTHING / "images.csv").is_file(), reason=f"no clothing pictures in {CLOTHING}"),
]
PICTURES = 240
SAMPLE = 40  # photographs, with 13 copies of each
PRESET = Path(__file__).resolve().parents[3] / "dagster_home" / "presets" / "image_folder.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert make_clothing_folder(CLOTHING, tmp_path / "clothing", PICTURES) == PICTURES
    return tmp_path / "clothing"


def measuring() -> list[Path]:
    """The photographs on which no threshold was chosen."""
    return [path for path in sorted((CLOTHING / "images").glob("*.jpg")) if side_of(path) == 1]


@pytest.fixture(scope="module")
def sample() -> Half:
    return half_of(measuring()[:SAMPLE])


@pytest.fixture(scope="module")
def all_photographs() -> Half:
    return half_of(measuring())


@pytest.mark.parametrize("kind", COPIES)
def test_copies_of_a_sample_are_found(sample: Half, kind: str):
    assert recall(sample, kind, DEFAULT_THRESHOLDS) >= MIN_RECALL


def test_no_stranger_of_a_sample_is_joined(sample: Half):
    assert strangers(sample, DEFAULT_THRESHOLDS) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found(all_photographs: Half, kind: str):
    assert recall(all_photographs, kind, DEFAULT_THRESHOLDS) >= MIN_RECALL


@pytest.mark.slow
def test_strangers_are_not_joined(all_photographs: Half):
    assert len(all_photographs.names) > 1400
    assert joined_share(all_photographs, DEFAULT_THRESHOLDS) <= MAX_STRANGERS


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
