"""What must hold of the splits. Leaks are looked for anew, in what was written; the splitter's word is not taken."""

# Great Expectations exports its expectations without saying so.
# pyright: reportPrivateImportUsage=false

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from great_expectations.core import ExpectationSuite

from vlm_assets.data.dedup import Thresholds
from vlm_assets.data.expectations.custom import ExpectEachInOneSplit
from vlm_assets.data.expectations.frames import group_frame, picture_frame
from vlm_assets.data.expectations.suites import CheckedTable, critical, suite, warning
from vlm_assets.data.leak_search import torn_pairs
from vlm_assets.data.tables import THUMBNAILS, read_json

MAX_TORN = 1000  # near duplicates in different splits that are listed: more say nothing new
BUG = "The splitter is at fault: materialize validated_splits again, and report it if it stays."
HeldOut = Mapping[str, Sequence[Mapping[str, str]]]  # by holdout, the combinations of slot values kept from training


def split_suites() -> list[ExpectationSuite]:
    """The suites of the splits, one per table."""
    pictures = suite(
        "pictures",
        critical(gxe.ExpectColumnValuesToBeUnique, "no two pictures share an id", BUG, column="image_id"),
        critical(gxe.ExpectColumnValuesToBeUnique, "no two pictures have the same pixels", BUG, column="sha256"),
        critical(gxe.ExpectColumnValuesToNotBeNull, "every picture is in a split", BUG, column="split"),
        critical(gxe.ExpectColumnValuesToMatchRegex, "splits are train, val, test or test_<name>",
            "Name holdouts with a-z, 0-9 and _.", column="split", regex=r"^(?:train|val|test(?:_[a-z0-9_]+)?)$"),
        critical(gxe.ExpectColumnDistinctValuesToContainSet, "there is something to train on",
            "Raise train_fraction, or see why all of train was dropped.", column="split", value_set=["train"]),
        critical(gxe.ExpectColumnValuesToNotBeNull, "the quality of every picture was measured", BUG,
            column="entropy_bits"),
        critical(gxe.ExpectColumnValuesToNotBeNull, "every picture is in a cluster", BUG, column="cluster"),
        critical(gxe.ExpectColumnValuesToBeBetween, "every picture has a caption", BUG,
            column="caption_count", min_value=1),
        critical(gxe.ExpectColumnValuesToBeInSet, "slots are declared for all captions of a picture or for none", BUG,
            column="slots_fit", value_set=[True]),
        critical(ExpectEachInOneSplit, "no cluster of near duplicates and group mates is torn between splits", BUG,
            column_A="cluster", column_B="split"),
        critical(gxe.ExpectColumnValuesToBeInSet, "no caption that trains says a value held out for a test", BUG,
            column="trains_on_held_out_value", value_set=[False]),
        warning(gxe.ExpectColumnDistinctValuesToContainSet, "there is a train, a val and a test split",
            "Set val_fraction and test_fraction, or add pictures.", column="split",
            value_set=["train", "val", "test"]),
        warning(gxe.ExpectColumnMeanToBeBetween, "between 40 % and 95 % of the pictures train",
            "See train_fraction, the holdouts and the largest clusters.",
            column="trains", min_value=0.4, max_value=0.95),
        warning(gxe.ExpectColumnMeanToBeBetween, "at most a fifth of the pictures that stay is doubtful",
            "See flagged.parquet and the table of reasons; drop_flagged drops what is not meant.",
            column="flagged", max_value=0.2),
        warning(gxe.ExpectColumnMaxToBeBetween, "no cluster holds more than a fifth of the pictures",
            "One group or chain of near duplicates decides a split: see the group column and the thresholds.",
            column="share_of_cluster", max_value=0.2),
    )  # fmt: skip
    groups = suite(
        "groups",
        critical(ExpectEachInOneSplit, "no group of the source (sender, product) is torn between splits", BUG,
            column_A="group", column_B="split"),
    )  # fmt: skip
    twins = suite(
        "near_duplicates",
        critical(gxe.ExpectColumnPairValuesToBeEqual, "no two near duplicates are in different splits", BUG,
            column_A="split_a", column_B="split_b", ignore_row_if="either_value_is_missing"),
    )  # fmt: skip
    sizes = suite(
        "splits",
        warning(gxe.ExpectColumnValuesToBeBetween, "every split is large enough to measure on",
            "Scores on fewer pictures have wide intervals: raise its share, or add pictures.",
            column="pictures", min_value=20),
    )  # fmt: skip
    dropped = suite(
        "dropped",
        warning(gxe.ExpectColumnValuesToBeBetween, "at most a fifth of the pictures was dropped",
            "See dropped.parquet and the table of reasons: the limits may be too strict for this source.",
            column="dropped_share", max_value=0.2),
    )  # fmt: skip
    return [pictures, groups, twins, sizes, dropped]


def split_tables(directory: Path) -> Iterator[CheckedTable]:
    """The tables of the splits, with the columns that the suites look at."""
    rows = directory / "rows.parquet"
    pictures = picture_frame(rows, ["image_id", "sha256", "split", "cluster", "entropy_bits", "flags"])
    summary = read_json(directory / "summary.json")
    held, limits = summary["held_out_values"], summary["near_duplicate_limits"]
    pictures["flagged"] = pictures.pop("flags").str.len().gt(0).astype(float)
    pictures["trains"] = pictures["split"].eq("train").astype(float)
    pictures["share_of_cluster"] = pictures.groupby("cluster")["split"].transform("size") / len(pictures)
    pictures["trains_on_held_out_value"] = _trains_on(rows, held)
    yield CheckedTable("pictures", ("image_id",), pictures)
    yield CheckedTable("groups", ("group", "image_id"), group_frame(rows))
    yield CheckedTable("near_duplicates", ("image_id_a", "image_id_b"), _twins(directory, pictures, limits))
    yield CheckedTable("splits", ("split",), pictures.groupby("split").size().rename("pictures").reset_index())
    yield CheckedTable("dropped", ("what",), _dropped(directory, pictures))


def says_held_out(slots_json: str, held: HeldOut) -> bool:
    """Whether one of a picture's captions has one of the held-out combinations of slot values."""
    captions = json.loads(slots_json)
    return any(values.items() <= caption.items() for group in held.values() for values in group for caption in captions)


def _trains_on(rows: Path, held: HeldOut) -> list[bool]:
    table = pq.read_table(rows, columns=["split", "slots"])
    pairs = zip(table["split"].to_pylist(), table["slots"].to_pylist(), strict=True)
    return [split in ("train", "val") and slots != "[]" and says_held_out(slots, held) for split, slots in pairs]


def _twins(directory: Path, pictures: pd.DataFrame, limits: Mapping[str, float]) -> pd.DataFrame:
    """Near duplicates with the split of each: those recorded, and of those found anew the first that are torn.

    The split of a dropped picture is none.
    """
    recorded = pq.read_table(directory / "near_duplicates.parquet", columns=["image_id_a", "image_id_b"]).to_pandas()
    thumbs = np.load(directory / THUMBNAILS, mmap_mode="r")
    found = torn_pairs(thumbs, pd.factorize(pictures["split"])[0].astype(np.int64), Thresholds(**limits))
    ids = pictures["image_id"].to_numpy()
    torn = [(ids[one], ids[other]) for one, other in islice(found, MAX_TORN)]
    pairs = pd.concat([recorded, pd.DataFrame(torn, columns=recorded.columns)]).drop_duplicates(ignore_index=True)
    split_of = pictures.drop_duplicates("image_id").set_index("image_id")["split"]
    return pairs.assign(split_a=pairs["image_id_a"].map(split_of), split_b=pairs["image_id_b"].map(split_of))


def _dropped(directory: Path, pictures: pd.DataFrame) -> pd.DataFrame:
    """Pictures dropped whole: single captions of pictures that stay do not count."""
    ids = pq.read_table(directory / "dropped.parquet", columns=["image_id"])["image_id"].to_pylist()
    gone = len(set(ids) - set(pictures["image_id"]))
    return pd.DataFrame([{"what": "pictures", "dropped_share": gone / max(gone + len(pictures), 1)}])
