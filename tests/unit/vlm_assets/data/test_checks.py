"""The checks in real runs: critical failures stop what is downstream, warnings do not; the page is in the store."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import encoded, picture, write_folder
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.data.assets import raw_dataset, tokenized_shards, validated_splits
from vlm_assets.data.captions import CaptionTokenizer
from vlm_assets.data.checks import raw_expectations, shard_expectations, split_expectations
from vlm_assets.data.dedup import Links, near_duplicates
from vlm_assets.data.snapshot import Picture
from vlm_assets.resources import RefIOManager, StoreResource, TrackerResource

ENOUGH, FEW = 60, 30
COPIES = 12  # near duplicates of the first pictures


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(
    tmp_path: Path, instance: dg.DagsterInstance, count: int = ENOUGH, splits: Mapping[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    """A folder of `count` pictures through the data stage and something that trains on it, with all checks."""
    store = StoreResource(root=str(tmp_path / "store"))
    folder = tmp_path / "in"
    names = [f"{n}.png" for n in range(count)] + [f"copy-of-{n}.jpg" for n in range(COPIES)]
    write_folder(folder, [{"file_name": name, "text": f"a red square {name}"} for name in names])
    for n in range(COPIES):
        (folder / f"copy-of-{n}.jpg").write_bytes(encoded(picture(n), "JPEG", quality=60))

    @dg.asset
    def base_model():
        built = store.open().build(Recipe("base_model", "1"), lambda draft: tiny_bundle(draft.path / "bundle"))
        return dg.MaterializeResult(value=built.ref)

    @dg.asset
    def trained(tokenized_shards: ArtifactRef) -> None:
        """What must not start on faulty shards."""

    assets = [raw_dataset, validated_splits, base_model, tokenized_shards, trained]
    return dg.materialize(
        [*assets, raw_expectations, split_expectations, shard_expectations],
        instance=instance,
        resources={"store": store, "tracker": TrackerResource(), "io_manager": RefIOManager(store=store)},
        run_config={
            "ops": {
                "raw_dataset": {"config": {"source": {"image_folder": {"path": str(folder)}}}},
                "validated_splits": {"config": splits or {}},
            }
        },
        raise_on_error=False,
    )


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str]]:
    return {one.check_name: (one.passed, one.severity.value) for one in result.get_asset_check_evaluations()}


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.step_key for event in result.get_asset_materialization_events() if event.step_key}


def metadata_of(result: dg.ExecuteInProcessResult, check: str) -> dict[str, Any]:
    (evaluation,) = [one for one in result.get_asset_check_evaluations() if one.check_name == check]
    return {"description": evaluation.description, **{name: value.value for name, value in evaluation.metadata.items()}}


def test_warnings_stop_nothing(tmp_path: Path, instance: dg.DagsterInstance):
    result = run(tmp_path, instance, FEW)
    assert result.success and "trained" in made(result)
    found = verdicts(result)
    assert found["raw_expectations"] == found["split_expectations"] == (False, "WARN")
    raw_check = metadata_of(result, "raw_expectations")
    assert raw_check["failed_critical"] == 0 and raw_check["failed_warnings"] >= 1
    assert "there are enough pictures to train and to measure on (pictures: 42)" in raw_check["description"]


def test_the_snapshot_is_judged_by_the_limits_of_the_splits_to_come(tmp_path: Path, instance: dg.DagsterInstance):
    """All pictures are 64 x 48: small for splits that ask for 49 px, and all right by the default."""
    tiny = "pictures are not tiny"
    assert tiny not in str(metadata_of(run(tmp_path / "default", instance), "raw_expectations")["description"])
    asked = run(tmp_path / "asked", instance, splits={"min_side_px": 49})
    assert f"{tiny} (pictures: 72 of 72 rows break it" in metadata_of(asked, "raw_expectations")["description"]
    assert "validated_splits" not in made(asked), "which nothing is left for"


def ids_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pictures of the snapshot get the same id."""
    original = Picture.to_row
    monkeypatch.setattr(Picture, "to_row", lambda *arguments: {**original(*arguments), "image_id": "same"})


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The splitter sees no near duplicates, and writes down none."""
    original = near_duplicates

    def none(thumbs: Any, *arguments: Any) -> Links:
        found = original(thumbs, *arguments)
        empty = [column[:0] for column in (found.first, found.second, found.mean_levels, found.cell_levels)]
        return Links(np.arange(len(thumbs)), *empty)

    monkeypatch.setattr("vlm_assets.data.splits.near_duplicates", none)


def no_bos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions are written without the token that generation starts from."""
    original = CaptionTokenizer.encode
    monkeypatch.setattr(CaptionTokenizer, "encode", lambda *arguments: original(*arguments)[1:])


@pytest.mark.parametrize(
    ("spoil", "check", "stopped"),
    [
        (ids_of_one, "raw_expectations", "validated_splits"),
        (blind, "split_expectations", "tokenized_shards"),
        (no_bos, "shard_expectations", "trained"),
    ],
)
def test_a_critical_failure_stops_what_is_downstream(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[pytest.MonkeyPatch], None],
    check: str,
    stopped: str,
):
    """Spoil what is stored as a bug in the stage would; the check must not let it pass."""
    spoil(monkeypatch)
    result = run(tmp_path, instance)
    assert not result.success
    assert verdicts(result)[check] == (False, "ERROR")
    assert stopped not in made(result)
    shown = metadata_of(result, check)
    assert shown["failed_critical"] >= 1 and shown["description"].startswith("does not hold: ")
    page = Path(shown["data_docs"]).read_text()
    assert "not hold" in page and "stops the run" in page


def test_the_metadata_has_a_row_per_expectation_and_the_page_is_in_the_store(
    tmp_path: Path, instance: dg.DagsterInstance
):
    from vlm_assets.data.expectations.raw import raw_suites

    result = run(tmp_path, instance, FEW)
    shown = metadata_of(result, "raw_expectations")
    count = sum(len(one.expectations) for one in raw_suites())
    records = [record.data for record in shown["expectations"].records]
    assert len(records) == count
    few = next(record for record in records if record["says"].startswith("there are enough"))
    assert (few["ok"], few["severity"], few["observed"], few["limit"]) == (False, "warning", "42", "at least 50")
    ref = result.output_for_node("raw_dataset")
    assert shown["data_docs"] == str(tmp_path / "store" / "data_docs" / "raw_dataset" / f"{ref.version}.html")
    assert f"{count - 1} of {count}" in Path(shown["data_docs"]).read_text()


def test_the_shards_are_checked_against_what_they_were_made_from(tmp_path: Path, instance: dg.DagsterInstance):
    """Not against the newest splits: a check run later, when there are others, says the same."""
    first = run(tmp_path, instance)
    assert verdicts(first)["shard_expectations"][1] == "WARN" and first.success
    ref = first.output_for_node("tokenized_shards")
    store = StoreResource(root=str(tmp_path / "store"))
    run(tmp_path, instance, FEW)
    again = shard_expectations(store, ref)
    assert isinstance(again, dg.AssetCheckResult)
    assert again.metadata["failed_critical"].value == 0
