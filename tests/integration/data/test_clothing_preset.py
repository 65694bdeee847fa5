"""The preset `clothing` on the real set: every row and picture accounted for, captions that a person would say."""

import csv
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from tests.integration.data.clothing import CLOTHING, NO_GARMENT, make_clothing_subset
from tests.tiny import tiny_bundle
from vlm_assets.contracts import Recipe
from vlm_assets.data.assets import raw_dataset, tokenized_shards, validated_splits
from vlm_assets.data.checks import raw_expectations, shard_expectations, split_expectations
from vlm_assets.data.sources.base import SKIPPED, SourceRow
from vlm_assets.data.sources.table import TableConfig
from vlm_assets.presets import PRESETS, read_preset
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (CLOTHING / "images.csv").is_file(), reason=f"no clothing pictures in {CLOTHING}"),
]
SUBSET = 300


@pytest.fixture(scope="module")
def preset() -> Mapping:
    return read_preset(PRESETS / "clothing.yaml")["ops"]["raw_dataset"]["config"]


@pytest.fixture(scope="module")
def rows(preset: Mapping) -> list[SourceRow]:
    config = {**preset["source"]["table"], "path": str(CLOTHING)}
    return list(TableConfig(**config).open())


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    with (CLOTHING / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_and_picture_is_used_or_has_its_reason(rows: list[SourceRow], table: list[dict[str, str]]):
    pictures = {file.stem for file in (CLOTHING / "images").iterdir()}
    listed = {row["image"] for row in table}
    garments = [row for row in table if row["label"] not in NO_GARMENT]
    reasons = Counter(row.reason for row in rows)
    assert reasons.pop("") == sum(row["image"] in pictures for row in garments)
    assert reasons.pop("missing_picture", 0) == sum(row["image"] not in pictures for row in garments)
    assert reasons.pop("no_table_row", 0) == len(pictures - listed)
    assert reasons == {f"skipped label={name}": sum(row["label"] == name for row in table) for name in NO_GARMENT}


def test_beside_what_the_preset_skips_hardly_a_row_is_unusable(rows: list[SourceRow], preset: Mapping):
    wanted = [row for row in rows if not row.reason.startswith(SKIPPED)]
    assert len(rows) - len(wanted) > 100
    assert sum(row.picture is None for row in wanted) <= 0.4 * preset["max_bad_fraction"] * len(wanted)


def test_the_preset_runs_clean_through_assets_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLM_CLOTHING", str(make_clothing_subset(CLOTHING, tmp_path / "clothing", SUBSET)))
    ops = read_preset(PRESETS / "clothing.yaml")["ops"]
    store = StoreResource(root=str(tmp_path / "store"))

    @dg.asset
    def base_model():
        built = store.open().build(Recipe("base_model", "1"), lambda draft: tiny_bundle(draft.path / "bundle"))
        return dg.MaterializeResult(value=built.ref)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [
                *(raw_dataset, raw_expectations, validated_splits, split_expectations),
                *(base_model, tokenized_shards, shard_expectations),
            ],
            instance=instance,
            resources={"store": store, "tracker": TrackerResource(), "io_manager": RefIOManager(store=store)},
            run_config={"ops": {name: ops[name] for name in ("raw_dataset", "validated_splits")}},
        )
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    for name in ("raw_expectations", "split_expectations"):
        assert checks[name].passed, checks[name].description
    shards = checks["shard_expectations"]
    # the small base model of tests has none of these words: it needs many pieces for each, and cuts some captions
    assert shards.metadata["failed_critical"].value == 0
    raw, splits = (result.output_for_node(name) for name in ("raw_dataset", "validated_splits"))
    assert raw.counts["quarantined"] == 0 and raw.counts["skipped"] > 10
    assert raw.counts["skipped"] + sum(splits.counts.values()) == SUBSET
    shown = result.asset_materializations_for_node("raw_dataset")[0].metadata["skipped"]
    assert isinstance(shown, dg.TableMetadataValue)
    assert {record.data["reason"] for record in shown.records} <= {f"skipped label={name}" for name in NO_GARMENT}
    assert all(record.data["meaning"] for record in shown.records)


def test_captions_are_english_and_say_their_slots(rows: list[SourceRow]):
    used = [row for row in rows if row.picture is not None]
    captions = {caption for row in used for caption in row.captions}
    assert {
        "a t-shirt",
        "an undershirt",
        "a pair of pants",
        "a pair of shoes for kids",
        "a jacket for kids",
    } <= captions
    assert all(re.fullmatch(r"an? [a-z][a-z -]+", caption) for caption in captions)
    for row in used:
        (caption,), (slots,) = row.captions, row.slots
        assert slots["label"] in caption
        assert caption.endswith(" for kids") == (slots["kids"] == "kids")


def test_senders_are_groups(rows: list[SourceRow], table: list[dict[str, str]]):
    senders = {f"{row['image']}.jpg": row["sender_id"] for row in table}
    assert all(row.group == senders[row.file_name] for row in rows if row.picture is not None)
