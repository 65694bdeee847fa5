"""What must hold of the raw snapshot and of the splits, as Great Expectations suites.

This module imports Great Expectations (3 s); the code location imports it only when a check runs.
Critical expectations stop the run, warnings are shown. Each is seen to fail in the tests.
"""

# Great Expectations exports its expectations without saying so.
# pyright: reportPrivateImportUsage=false

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import great_expectations as gx  # noqa: TID253
import great_expectations.expectations as gxe  # noqa: TID253
import pandas as pd
from great_expectations.core import ExpectationSuite  # noqa: TID253
from great_expectations.data_context.types.base import ProgressBarsConfig  # noqa: TID253

from vlm_assets.data.tables import Row, read_json, read_rows

EXAMPLES_SHOWN = 5
EXAMPLE_CHARACTERS = 160
Severity = Literal["critical", "warning"]


@dataclass(frozen=True)
class Outcome:
    """One expectation, checked."""

    expectation: str
    column: str
    severity: Severity
    passed: bool
    unexpected_rows: int
    observed: str  # the value seen, or examples of unexpected values with their image ids


class ExpectEachClusterInOneSplit(gxe.ExpectColumnValuesToBeBetween):
    """No near duplicate and no group mate sits across two splits."""

    min_value: Any = 1
    max_value: Any = 1


class ExpectEachGroupInOneSplit(gxe.ExpectColumnValuesToBeBetween):
    """No group of the source sits across two splits."""

    min_value: Any = 1
    max_value: Any = 1


class ExpectNoTwinInAnotherSplit(gxe.ExpectColumnValuesToBeBetween):
    """No recorded near duplicate of a row is in another split."""

    min_value: Any = 0
    max_value: Any = 0


class ExpectNoHeldOutValueInTraining(gxe.ExpectColumnValuesToBeInSet):
    """No caption outside the test splits says a value that a holdout keeps from training."""

    value_set: Any = (False,)


def raw_suite() -> ExpectationSuite:
    """The suite of the raw snapshot."""
    critical: list[Any] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToNotBeNull(column="image_id"),
        gxe.ExpectColumnValuesToBeUnique(column="image_id"),
        gxe.ExpectColumnValuesToMatchRegex(column="sha256", regex=r"^[0-9a-f]{64}$"),
        gxe.ExpectColumnValuesToBeBetween(column="width", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="height", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="caption_count", min_value=1),
        gxe.ExpectColumnValuesToMatchRegex(column="caption", regex=r"\S"),
        gxe.ExpectColumnValuesToBeInSet(column="one_slot_set_per_caption", value_set=[True]),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=["", "train", "val", "test"]),
    ]
    warning: list[Any] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=50),
        gxe.ExpectColumnValuesToBeInSet(column="format", value_set=["PNG", "JPEG", "WEBP", "GIF", "BMP"]),
        gxe.ExpectColumnValuesToBeBetween(column="shorter_side", min_value=32, mostly=0.99),
        gxe.ExpectColumnValuesToBeBetween(column="aspect", min_value=1, max_value=4, mostly=0.99),
        gxe.ExpectColumnValuesToBeBetween(column="caption_words", min_value=2, max_value=60, mostly=0.95),
        gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(column="caption", min_value=0.01),
    ]
    return _suite("raw_dataset", critical, warning)


def split_suite() -> ExpectationSuite:
    """The suite of the splits."""
    critical: list[Any] = [
        gxe.ExpectColumnValuesToBeUnique(column="image_id"),
        gxe.ExpectColumnValuesToBeUnique(column="sha256"),
        gxe.ExpectColumnValuesToNotBeNull(column="cluster"),
        gxe.ExpectColumnValuesToMatchRegex(column="split", regex=r"^(?:train|val|test(?:_[a-z0-9_]+)?)$"),
        gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train"]),
        gxe.ExpectColumnValuesToBeBetween(column="caption_count", min_value=1),
        ExpectEachClusterInOneSplit(column="splits_of_cluster"),
        ExpectEachGroupInOneSplit(column="splits_of_group"),
        ExpectNoTwinInAnotherSplit(column="twins_in_other_splits"),
        ExpectNoHeldOutValueInTraining(column="trains_on_held_out_value"),
    ]
    warning: list[Any] = [
        gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "val", "test"]),
        gxe.ExpectColumnMeanToBeBetween(column="trains", min_value=0.4, max_value=0.95),
        gxe.ExpectColumnValuesToBeBetween(column="rows_of_split", min_value=20),
        gxe.ExpectColumnMaxToBeBetween(column="share_of_cluster", max_value=0.2),
    ]
    return _suite("validated_splits", critical, warning)


def raw_frame(directory: Path) -> pd.DataFrame:
    """One row per picture of a raw snapshot, with what the suite looks at."""
    return pd.DataFrame([_described(row) for row in read_rows(directory / "rows.parquet")])


def split_frame(directory: Path) -> pd.DataFrame:
    """One row per picture of the splits, with what the suite looks at: computed anew, not taken from the splitter."""
    frame = pd.DataFrame([_described(row) for row in read_rows(directory / "rows.parquet")])
    held = read_json(directory / "summary.json")["held_out_values"]
    pairs = read_rows(directory / "near_duplicates.parquet", ["image_id_a", "image_id_b"])
    grouped = frame["group"].where(frame["group"] != "", frame["image_id"])
    frame["splits_of_cluster"] = frame.groupby("cluster")["split"].transform("nunique")
    frame["splits_of_group"] = frame.groupby(grouped)["split"].transform("nunique")
    frame["twins_in_other_splits"] = _torn_twins(frame, pairs)
    frame["trains"] = frame["split"].eq("train").astype(float)
    frame["rows_of_split"] = frame.groupby("split")["split"].transform("size")
    frame["share_of_cluster"] = frame.groupby("cluster")["split"].transform("size") / len(frame)
    frame["trains_on_held_out_value"] = [
        split in ("train", "val") and says_held_out(slots, held)
        for split, slots in zip(frame["split"], frame["slots"], strict=True)
    ]
    return frame


def check(frame: pd.DataFrame, suite: ExpectationSuite) -> list[Outcome]:
    """Check every expectation of the suite, in order."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batch = context.data_sources.pandas_default.read_dataframe(frame)
    wanted = {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": ["image_id"],
        "partial_unexpected_count": EXAMPLES_SHOWN,
    }
    result = batch.validate(suite, result_format=wanted)
    return [_outcome(item) for item in result.results]


def says_held_out(slots_json: str, held: Mapping[str, Sequence[Mapping[str, str]]]) -> bool:
    """Whether a caption's slots contain one of the held-out combinations."""
    captions = json.loads(slots_json)
    return any(values.items() <= caption.items() for group in held.values() for values in group for caption in captions)


def _suite(name: str, critical: Sequence[Any], warning: Sequence[Any]) -> ExpectationSuite:
    for severity, expectations in (("critical", critical), ("warning", warning)):
        for expectation in expectations:
            expectation.severity = severity
    return ExpectationSuite(name=name, expectations=[*critical, *warning])


def _described(row: Row) -> dict[str, Any]:
    slots = json.loads(row["slots"])
    sides = sorted((row["width"], row["height"]))
    caption = next(iter(row["captions"]), "")
    return {
        **{name: value for name, value in row.items() if name != "captions"},
        "caption": caption,
        "caption_count": len(row["captions"]),
        "caption_words": len(caption.split()),
        "one_slot_set_per_caption": len(slots) in (0, len(row["captions"])),
        "shorter_side": sides[0],
        "aspect": sides[1] / max(sides[0], 1),
    }


def _torn_twins(frame: pd.DataFrame, pairs: Sequence[Row]) -> list[int]:
    split_of = dict(zip(frame["image_id"], frame["split"], strict=True))
    torn: dict[str, int] = dict.fromkeys(split_of, 0)
    for pair in pairs:
        one, other = pair["image_id_a"], pair["image_id_b"]
        if one in split_of and other in split_of and split_of[one] != split_of[other]:
            torn[one] += 1
            torn[other] += 1
    return [torn[image_id] for image_id in frame["image_id"]]


def _outcome(item: Any) -> Outcome:
    config, result = item.expectation_config, item.result
    column = config.kwargs.get("column", "")
    examples = [f"{row['image_id']}: {row[column]}" for row in result.get("unexpected_index_list") or []]
    seen = "; ".join(examples[:EXAMPLES_SHOWN]) or result.get("observed_value", "")
    if item.exception_info and item.exception_info.get("raised_exception"):
        seen = item.exception_info.get("exception_message", "")
    return Outcome(
        expectation=config.type,
        column=column,
        severity="warning" if config.severity.value == "warning" else "critical",
        passed=bool(item.success),
        unexpected_rows=int(result.get("unexpected_count") or 0),
        observed=str(seen)[:EXAMPLE_CHARACTERS],
    )
