"""What must hold of the shards: whole, disjoint, and in the very form that the model trains on and is served with."""

# Great Expectations exports its expectations without saying so.
# pyright: reportPrivateImportUsage=false

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import great_expectations.expectations as gxe
import pandas as pd
import pyarrow.parquet as pq
from great_expectations.core import ExpectationSuite

from vlm_assets.data.expectations.shard_frames import read_shards
from vlm_assets.data.expectations.suites import CheckedTable, critical, suite, warning
from vlm_assets.data.tables import read_json
from vlm_serving.bundle import CONTRACT
from vlm_serving.preprocessing import PreprocessingContract

BUG = "The shard builder is at fault: materialize tokenized_shards again, and report it if it stays."
STALE = "The shards were made from other inputs: materialize tokenized_shards again."
MEGABYTE, MEBIBYTE = 1_000_000, 1 << 20


@dataclass(frozen=True)
class ModelInput:
    """What the model that the shards are for takes in: its contract, its vocabulary, its word for the unknown."""

    contract: PreprocessingContract
    vocabulary_size: int
    unknown_token_id: int


def read_model_input(bundle: Path) -> ModelInput:
    """From a bundle's contract, model configuration and tokenizer; no weight is loaded."""
    words = read_json(bundle / "tokenizer.json")["model"]
    return ModelInput(
        PreprocessingContract.from_json(read_json(bundle / CONTRACT)),
        read_json(bundle / "config.json")["text_config"]["vocab_size"],
        words["vocab"][words["unk_token"]],
    )


def shard_suites(model: ModelInput, shard_mb: int = 128) -> list[ExpectationSuite]:
    """The suites of the shards, one per table. `shard_mb`: how large the files were meant to be, in MiB."""
    contract, side_px = model.contract, model.contract.image_size_px
    pictures = suite(
        "pictures",
        critical(gxe.ExpectTableRowCountToBeBetween, "there is at least one picture", BUG, min_value=1),
        critical(gxe.ExpectColumnValuesToNotBeNull, "every picture has an id", BUG, column="image_id"),
        critical(gxe.ExpectColumnValuesToBeUnique, "no picture is in two shards, splits included", BUG,
            column="image_id"),
        critical(gxe.ExpectColumnPairValuesToBeEqual, "every picture is in the split that validated_splits gave it",
            STALE, column_A="split", column_B="validated_split"),
        critical(gxe.ExpectColumnValuesToBeBetween, "every row holds the bytes of a picture", BUG,
            column="image_bytes", min_value=1),
        critical(gxe.ExpectColumnValuesToBeBetween, "every picture has a caption", BUG,
            column="caption_count", min_value=1),
        critical(gxe.ExpectColumnPairValuesToBeEqual, "there is one list of token ids per caption", BUG,
            column_A="caption_count", column_B="id_lists"),
    )  # fmt: skip
    decoded = suite(
        "decoded_sample",
        critical(gxe.ExpectColumnValuesToBeInSet, "pictures decode, to RGB", BUG, column="mode", value_set=["RGB"]),
        critical(gxe.ExpectColumnValuesToBeInSet, "pictures are as wide as the model's input", STALE,
            column="width", value_set=[side_px]),
        critical(gxe.ExpectColumnValuesToBeInSet, "pictures are as high as the model's input", STALE,
            column="height", value_set=[side_px]),
    )  # fmt: skip
    captions = suite(
        "captions",
        critical(gxe.ExpectColumnValuesToBeInSet, "token ids start with BOS, as generation does", STALE,
            column="first_id", value_set=[contract.bos_token_id]),
        critical(gxe.ExpectColumnValuesToBeInSet, "token ids end with EOS, at which generation stops", STALE,
            column="last_id", value_set=[contract.eos_token_id]),
        critical(gxe.ExpectColumnValuesToBeBetween, "captions are no longer than the model takes", STALE,
            column="tokens", min_value=2, max_value=contract.max_caption_tokens),
        critical(gxe.ExpectColumnValuesToBeBetween, "no token id is negative", BUG, column="lowest_id", min_value=0),
        critical(gxe.ExpectColumnValuesToBeBetween, "all token ids are in the model's vocabulary", STALE,
            column="highest_id", max_value=model.vocabulary_size - 1),
        warning(gxe.ExpectColumnValuesToBeBetween, "there is a word between BOS and EOS",
            "The tokenizer makes nothing of these captions: clean them.", column="tokens", min_value=3),
        warning(gxe.ExpectColumnValuesToBeInSet, "no caption spells out BOS, EOS or padding",
            "A caption that contains '[SEP]' or the like teaches the model to stop there: clean the captions.",
            column="special_ids_inside", value_set=[0]),
        warning(gxe.ExpectColumnValuesToBeBetween, "at most half of a caption is unknown to the tokenizer",
            "Captions in another script or language? Choose a base model whose vocabulary has it.",
            column="unknown_share", max_value=0.5),
        warning(gxe.ExpectColumnMeanToBeBetween, "the tokenizer knows nearly all words",
            "Train on a base whose vocabulary fits, or clean the captions.", column="unknown_share", max_value=0.02),
    )  # fmt: skip
    files = suite(
        "files",
        critical(gxe.ExpectColumnValuesToBeInSet, "every file says that it was made by the model's own contract", STALE,
            column="contract_sha256", value_set=[contract.sha256]),
        critical(gxe.ExpectColumnPairValuesToBeEqual, "every file is of the split that its name says", BUG,
            column_A="split", column_B="said_split"),
        warning(gxe.ExpectColumnValuesToBeBetween, "no file is far above the size that readers fetch at once",
            "Lower shard_mb: the 16 pictures that sizes are reckoned from were smaller than most.",
            column="size_mb", max_value=1.5 * shard_mb * MEBIBYTE / MEGABYTE),
        warning(gxe.ExpectColumnValuesToBeBetween, "all files of a split but the last are full",
            "Raise shard_mb: the 16 pictures that sizes are reckoned from were larger than most, and many small files "
            "are slow to open, on S3 above all.",
            column="size_mb_unless_last", min_value=0.2 * shard_mb * MEBIBYTE / MEGABYTE),
    )  # fmt: skip
    splits = suite(
        "splits",
        critical(gxe.ExpectColumnPairValuesToBeEqual, "every split has as many pictures as validated_splits says",
            STALE, column_A="pictures", column_B="validated_pictures"),
    )  # fmt: skip
    contracts = suite(
        "contract",
        critical(gxe.ExpectColumnValuesToBeInSet, "pictures and captions were prepared by the model's own contract",
            STALE, column="sha256", value_set=[contract.sha256]),
    )  # fmt: skip
    truncation = suite(
        "truncation",
        warning(gxe.ExpectColumnValuesToBeBetween, "few captions are longer than the model takes",
            "What is beyond is cut off: shorten captions, or choose a model with more places.",
            column="truncated_share", max_value=0.05),
    )  # fmt: skip
    return [pictures, decoded, captions, files, splits, contracts, truncation]


def shard_tables(shards: Path, splits: Path, model: ModelInput) -> Iterator[CheckedTable]:
    """The tables of the shards. `splits` is the directory of the validated_splits that they were made from."""
    found = read_shards(shards, model.contract, model.unknown_token_id)
    validated = pq.read_table(splits / "rows.parquet", columns=["image_id", "split"]).to_pandas()
    pictures = found.pictures
    pictures["validated_split"] = pictures["image_id"].map(
        validated.drop_duplicates("image_id").set_index("image_id")["split"]
    )
    yield CheckedTable("pictures", ("image_id",), pictures)
    yield CheckedTable("decoded_sample", ("image_id",), found.decoded)
    yield CheckedTable("captions", ("image_id", "number"), found.captions)
    yield CheckedTable("files", ("file",), found.files)
    yield CheckedTable("splits", ("split",), _sizes(pictures, validated))
    yield CheckedTable("contract", ("where",), _contracts(shards))
    yield CheckedTable("truncation", ("what",), _truncation(shards))


def _sizes(pictures: pd.DataFrame, validated: pd.DataFrame) -> pd.DataFrame:
    """One row per split that either side knows; a split that one side lacks counts 0 there."""
    counted = {"pictures": pictures["split"].value_counts(), "validated_pictures": validated["split"].value_counts()}
    sizes = pd.DataFrame(counted).fillna(0).astype(int)
    return sizes.rename_axis("split").reset_index()


def _contracts(shards: Path) -> pd.DataFrame:
    """The contract's digest, wherever the shards name it."""
    named = {
        CONTRACT: PreprocessingContract.from_json(read_json(shards / CONTRACT)).sha256,
        "summary.json": read_json(shards / "summary.json")["contract_sha256"],
    }
    return pd.DataFrame({"where": list(named), "sha256": list(named.values())})


def _truncation(shards: Path) -> pd.DataFrame:
    """What only the tokenizer could count: ids of a caption that just fits look like those of one that was cut."""
    tokens = read_json(shards / "summary.json")["tokens"]
    share = tokens["truncated_captions"] / max(tokens["captions"], 1)
    return pd.DataFrame([{"what": "captions", "truncated_share": share}])
