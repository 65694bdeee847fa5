"""Every expectation of both suites is seen to hold on sound data and to fail on data spoiled for it."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from vlm_assets.data.checks import to_result
from vlm_assets.data.expectations import check, raw_frame, raw_suite, split_frame, split_suite
from vlm_assets.data.tables import NEAR_DUPLICATES, RAW_ROWS, SPLIT_ROWS, write_json, write_rows

ROWS = 120
Spoil = dict[str, Any]


def raw_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "image_id": f"{number:016x}",
        "sha256": f"{number:064x}",
        "width": 64,
        "height": 48,
        "format": "PNG",
        "captions": [f"picture number {number}"],
        "group": f"g{number // 2}",
        "slots": json.dumps([{"role": f"r{number}"}]),
        "split": "",
        "copies": 1,
    }
    return {**row, **changes}


def split_row(number: int, **changes: Any) -> dict[str, Any]:
    split = "train" if number < 80 else ("val" if number < 100 else "test")
    return {**raw_row(number), "split": split, "cluster": f"{number:016x}", **changes}


def raw(path: Path, rows: list[dict[str, Any]]) -> pd.DataFrame:
    write_rows(path / "rows.parquet", RAW_ROWS, rows)
    return raw_frame(path)


def splits(
    path: Path, rows: list[dict[str, Any]], pairs: list[tuple[int, int]] | None = None, held: Any = None
) -> pd.DataFrame:
    near = [{"image_id_a": f"{one:016x}", "image_id_b": f"{two:016x}", "distance": 1.0} for one, two in pairs or []]
    write_rows(path / "rows.parquet", SPLIT_ROWS, rows)
    write_rows(path / "near_duplicates.parquet", NEAR_DUPLICATES, near)
    write_json(path / "summary.json", {"held_out_values": held or {"unseen_role": [{"role": "r119"}]}})
    return split_frame(path)


def failures(outcomes: list[Any]) -> set[tuple[str, str, str]]:
    return {
        (outcome.severity, outcome.expectation.removeprefix("expect_column_"), outcome.column)
        for outcome in outcomes
        if not outcome.passed
    }


RAW_FAULTS: dict[tuple[str, str, str], Spoil] = {
    ("critical", "values_to_not_be_null", "image_id"): {"image_id": None},
    ("critical", "values_to_be_unique", "image_id"): {"image_id": f"{1:016x}"},
    ("critical", "values_to_match_regex", "sha256"): {"sha256": "XYZ"},
    ("critical", "values_to_be_between", "width"): {"width": 0},
    ("critical", "values_to_be_between", "height"): {"height": 0},
    ("critical", "values_to_be_between", "caption_count"): {"captions": []},
    ("critical", "values_to_match_regex", "caption"): {"captions": ["  "]},
    ("critical", "values_to_be_in_set", "one_slot_set_per_caption"): {"slots": "[{}, {}]"},
    ("critical", "values_to_be_in_set", "split"): {"split": "holdout"},
    ("warning", "values_to_be_in_set", "format"): {"format": "TIFF"},
    ("warning", "values_to_be_between", "shorter_side"): {"height": 31},
    ("warning", "values_to_be_between", "aspect"): {"width": 480},
    ("warning", "values_to_be_between", "caption_words"): {"captions": ["picture"]},
}
MOSTLY = {"shorter_side", "aspect", "caption_words"}  # these forgive single rows


@pytest.mark.parametrize("fault", RAW_FAULTS, ids=lambda fault: "-".join(fault))
def test_each_raw_expectation_fails_on_its_fault(tmp_path: Path, fault: tuple[str, str, str]):
    spoiled = 20 if fault[2] in MOSTLY else 1
    rows = [raw_row(number, **(RAW_FAULTS[fault] if number < spoiled else {})) for number in range(ROWS)]
    assert fault in failures(check(raw(tmp_path, rows), raw_suite()))


def test_few_rows_and_equal_captions_are_warned_of(tmp_path: Path):
    few = failures(check(raw(tmp_path, [raw_row(1)]), raw_suite()))
    assert few == {("warning", "expect_table_row_count_to_be_between".removeprefix("expect_column_"), "")}
    same = [raw_row(number, captions=["a picture"]) for number in range(ROWS)]
    assert failures(check(raw(tmp_path, same), raw_suite())) == {
        ("warning", "proportion_of_unique_values_to_be_between", "caption")
    }


def test_no_rows_at_all_are_critical(tmp_path: Path):
    sound = raw(tmp_path, [raw_row(1)])
    outcomes = check(sound.iloc[:0], raw_suite())
    assert "critical" in {
        outcome.severity for outcome in outcomes if "row_count" in outcome.expectation and not outcome.passed
    }


SPLIT_FAULTS: dict[tuple[str, str, str], Spoil] = {
    ("critical", "values_to_be_unique", "image_id"): {"image_id": f"{1:016x}"},
    ("critical", "values_to_be_unique", "sha256"): {"sha256": f"{1:064x}"},
    ("critical", "values_to_not_be_null", "cluster"): {"cluster": None},
    ("critical", "values_to_match_regex", "split"): {"split": "Train"},
    ("critical", "values_to_be_between", "caption_count"): {"captions": [], "slots": "[]"},
    ("critical", "each_cluster_in_one_split", "splits_of_cluster"): {"cluster": f"{100:016x}"},
    ("critical", "each_group_in_one_split", "splits_of_group"): {"group": "g50"},
    ("critical", "no_held_out_value_in_training", "trains_on_held_out_value"): {"slots": '[{"role": "r119"}]'},
    ("warning", "values_to_be_between", "rows_of_split"): {"split": "test_tiny", "cluster": "own"},
}


@pytest.mark.parametrize("fault", SPLIT_FAULTS, ids=lambda fault: "-".join(fault))
def test_each_split_expectation_fails_on_its_fault(tmp_path: Path, fault: tuple[str, str, str]):
    rows = [split_row(number, **(SPLIT_FAULTS[fault] if number == 0 else {})) for number in range(ROWS)]
    found = failures(check(splits(tmp_path, rows), split_suite()))
    assert fault in {(severity, name.removeprefix("expect_"), column) for severity, name, column in found}


def test_a_torn_near_duplicate_is_critical(tmp_path: Path):
    frame = splits(tmp_path, [split_row(number) for number in range(ROWS)], pairs=[(1, 2), (3, 119)])
    torn = next(outcome for outcome in check(frame, split_suite()) if outcome.column == "twins_in_other_splits")
    assert (torn.passed, torn.severity, torn.unexpected_rows) == (False, "critical", 2)
    assert f"{119:016x}" in torn.observed, "the table names the pictures"


@pytest.mark.parametrize(
    ("renamed", "fault"),
    [
        ({"train": "test"}, ("critical", "distinct_values_to_contain_set", "split")),
        ({"val": "test"}, ("warning", "distinct_values_to_contain_set", "split")),
        ({"val": "train", "test": "train"}, ("warning", "mean_to_be_between", "trains")),
    ],
)
def test_missing_and_lopsided_splits(tmp_path: Path, renamed: dict[str, str], fault: tuple[str, str, str]):
    rows = [split_row(number) for number in range(ROWS)]
    renamed_rows = [{**row, "split": renamed.get(row["split"], row["split"])} for row in rows]
    assert fault in failures(check(splits(tmp_path, renamed_rows), split_suite()))


def test_one_cluster_that_swallows_the_set_is_warned_of(tmp_path: Path):
    rows = [split_row(number, **({"cluster": "big"} if number < 60 else {})) for number in range(ROWS)]
    assert failures(check(splits(tmp_path, rows), split_suite())) == {
        ("warning", "max_to_be_between", "share_of_cluster")
    }


def test_sound_data_passes_both_suites(tmp_path: Path):
    assert not failures(check(raw(tmp_path, [raw_row(number) for number in range(ROWS)]), raw_suite()))
    assert not failures(check(splits(tmp_path, [split_row(number) for number in range(ROWS)]), split_suite()))


def test_every_expectation_of_the_suites_has_a_fault_above():
    """Expectations without an entry in the tables are those of the tests by name."""
    by_name = {"table_row_count", "unique_value_proportion", "distinct_values", "mean", "max", "twin"}
    covered = {(severity, column) for severity, _, column in [*RAW_FAULTS, *SPLIT_FAULTS]}
    for suite in (raw_suite(), split_suite()):
        for expectation in suite.expectations:
            key = (
                str(getattr(expectation.severity, "value", expectation.severity)),
                getattr(expectation, "column", ""),
            )
            assert key in covered or any(name in expectation.expectation_type for name in by_name | {"proportion"}), key


def test_severity_decides_between_error_and_warning(tmp_path: Path):
    sound = [raw_row(number) for number in range(ROWS)]
    results = {
        "sound": to_result(check(raw(tmp_path, sound), raw_suite())),
        "warned": to_result(check(raw(tmp_path, [*sound, raw_row(500, format="TIFF")]), raw_suite())),
        "broken": to_result(check(raw(tmp_path, [*sound, raw_row(1)]), raw_suite())),
    }
    assert {name: (result.passed, result.severity) for name, result in results.items()} == {
        "sound": (True, dg.AssetCheckSeverity.WARN),
        "warned": (False, dg.AssetCheckSeverity.WARN),
        "broken": (False, dg.AssetCheckSeverity.ERROR),
    }
    table = results["broken"].metadata["expectations"]
    assert isinstance(table, dg.TableMetadataValue) and len(table.records) == len(raw_suite().expectations)
    assert "values_to_be_unique of image_id" in (results["broken"].description or "")
