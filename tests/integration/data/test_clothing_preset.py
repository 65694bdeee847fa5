"""The preset `clothing` on the real set: every row and picture accounted for, captions that a person would say."""

import csv
import re
from collections import Counter
from collections.abc import Mapping

import pytest

from tests.integration.data.clothing import CLOTHING, NO_GARMENT
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.sources.table import TableConfig
from vlm_assets.presets import PRESETS, read_preset

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not (CLOTHING / "images.csv").is_file(), reason=f"no clothing pictures in {CLOTHING}"),
]


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


def test_so_much_is_unusable_as_the_preset_allows_and_hardly_less(rows: list[SourceRow], preset: Mapping):
    share = sum(row.picture is None for row in rows) / len(rows)
    assert 0.9 * preset["max_bad_fraction"] < share <= preset["max_bad_fraction"]


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
