"""What must hold of the raw snapshot."""

# Great Expectations exports its expectations without saying so.
# pyright: reportPrivateImportUsage=false

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core import ExpectationSuite

from vlm_assets.data.expectations.custom import ExpectAspectRatioToBeAtMost
from vlm_assets.data.expectations.frames import caption_frame, is_packed, joined, picture_frame
from vlm_assets.data.expectations.suites import CheckedTable, critical, suite, warning
from vlm_assets.data.tables import read_json

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP"]
WARN_AT = 0.4  # of what max_bad_fraction allows: early enough to look before an import fails
BUG = "The importer is at fault: materialize raw_dataset again, and report it if it stays."


@dataclass(frozen=True)
class RawLimits:
    """The settings that the expectations go by."""

    max_bad_fraction: float = 0.05  # of raw_dataset
    min_side_px: int = 32  # of validated_splits, as the next two: what it will drop
    max_aspect_ratio: float = 4.0


DEFAULT_LIMITS = RawLimits()


def raw_suites(limits: RawLimits = DEFAULT_LIMITS) -> list[ExpectationSuite]:
    """The suites of the raw snapshot, one per table."""
    pictures = suite(
        "pictures",
        critical(gxe.ExpectTableRowCountToBeBetween, "there is at least one picture",
            "Check the source: nothing in it could be used.", min_value=1),
        critical(gxe.ExpectColumnValuesToNotBeNull, "every picture has an id", BUG, column="image_id"),
        critical(gxe.ExpectColumnValuesToBeUnique, "no two pictures share an id", BUG, column="image_id"),
        critical(gxe.ExpectColumnValuesToNotBeNull, "every picture has a digest of its pixels", BUG, column="sha256"),
        critical(gxe.ExpectColumnValuesToMatchRegex, "digests of pixels are sha256 in hexadecimal", BUG,
            column="sha256", regex=r"^[0-9a-f]{64}$"),
        critical(gxe.ExpectColumnValuesToBeUnique, "no two pictures have the same pixels", BUG, column="sha256"),
        critical(gxe.ExpectColumnValuesToBeInSet, "every picture listed is in a pack", BUG,
            column="packed", value_set=[True]),
        critical(gxe.ExpectColumnValuesToBeBetween, "every picture has a width", BUG, column="width", min_value=1),
        critical(gxe.ExpectColumnValuesToBeBetween, "every picture has a height", BUG, column="height", min_value=1),
        critical(gxe.ExpectColumnValuesToBeBetween, "every picture has a caption", BUG,
            column="caption_count", min_value=1),
        critical(gxe.ExpectColumnValuesToBeInSet, "slots are declared for all captions of a picture or for none",
            "Make the source declare slots for each caption of a picture.", column="slots_fit", value_set=[True]),
        critical(gxe.ExpectColumnValuesToMatchRegex, "splits that the source prescribes are train, val or test",
            "Rename the source's splits, or leave its split column out.",
            column="given_splits", regex=r"^(?:\b(?:train|val|test)\b| )*$"),
        critical(gxe.ExpectColumnValuesToBeBetween, "every picture comes from a row of the source", BUG,
            column="copies", min_value=1),
        warning(gxe.ExpectTableRowCountToBeBetween, "there are enough pictures to train and to measure on",
            "Add pictures: scores on a few of them say little.", min_value=50),
        warning(gxe.ExpectColumnValuesToBeInSet, "pictures are in a format that is usual for them",
            "See which files are meant; convert them if they are many.", column="format", value_set=FORMATS),
        warning(gxe.ExpectColumnValuesToBeBetween, "pictures are not tiny",
            "Small pictures are enlarged for the model: look for larger originals.",
            column="shorter_side", min_value=limits.min_side_px, mostly=0.99),
        warning(ExpectAspectRatioToBeAtMost, "pictures are not strips",
            "The model sees squares: cut strips to what they show.",
            column_A="width", column_B="height", max_ratio=limits.max_aspect_ratio, mostly=0.99),
    )  # fmt: skip
    captions = suite(
        "captions",
        critical(gxe.ExpectColumnValuesToMatchRegex, "no caption is blank", BUG, column="caption", regex=r"\S"),
        critical(gxe.ExpectCompoundColumnsToBeUnique, "no picture has a caption twice", BUG,
            column_list=["image_id", "caption"]),
        warning(gxe.ExpectColumnValuesToBeBetween, "captions are sentences, neither single words nor essays",
            "Look at the examples: a label or a description may be in the caption column.",
            column="words", min_value=2, max_value=60, mostly=0.95),
        warning(gxe.ExpectColumnValuesToNotMatchRegex, "no character of a caption was lost in decoding",
            "Save the source's captions as UTF-8.", column="caption", regex="\N{REPLACEMENT CHARACTER}"),
        warning(gxe.ExpectColumnProportionOfUniqueValuesToBeBetween, "captions differ",
            "The captions may be a template's: a model will learn to say little else.",
            column="caption", min_value=0.01),
    )  # fmt: skip
    source = suite(
        "source",
        warning(gxe.ExpectColumnValuesToBeBetween, "nearly all rows of the source could be used",
            "See quarantine.parquet for each row put aside, and why; beyond max_bad_fraction the import stops.",
            column="quarantined_share", max_value=WARN_AT * limits.max_bad_fraction),
        warning(gxe.ExpectColumnValuesToBeBetween, "copies of a picture are prescribed to one split",
            "Of such rows the first counts, the others are dropped as would_tie_splits: mend the source.",
            column="prescribed_split_conflicts", max_value=0),
        warning(gxe.ExpectColumnValuesToMatchRegex, "it is said whose data it is",
            "Give the source an attribution: models that learnt from it must name it.",
            column="attribution", regex=r"\S"),
    )  # fmt: skip
    return [pictures, captions, source]


def raw_tables(directory: Path) -> Iterator[CheckedTable]:
    """The tables of a raw snapshot, with the columns that the suites look at."""
    rows = directory / "rows.parquet"
    pictures = picture_frame(rows, ["image_id", "sha256", "width", "height", "format", "copies"])
    pictures["given_splits"] = joined(rows, "given_splits")
    pictures["packed"] = is_packed(rows, directory)
    yield CheckedTable("pictures", ("image_id",), pictures)
    del pictures
    yield CheckedTable("captions", ("image_id",), caption_frame(rows), about="caption")
    yield CheckedTable("source", ("title",), _source(directory))


def _source(directory: Path) -> pd.DataFrame:
    summary = read_json(directory / "summary.json")
    row = {
        "title": summary["attribution"]["title"],
        "attribution": summary["attribution"]["text"],
        "quarantined_share": summary["quarantined"] / max(summary["source_rows"] - summary["skipped"], 1),
        "prescribed_split_conflicts": summary["prescribed_split_conflicts"],
    }
    return pd.DataFrame([row])
