"""Every expectation of every suite is seen to hold on sound data and to fail on data spoiled for it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd
import pytest
from great_expectations.core import ExpectationSuite

from tests.unit.vlm_assets.data.artifacts import (
    ATTRIBUTION,
    BOS,
    EOS,
    MODEL,
    PAD,
    ROWS,
    UNKNOWN,
    Made,
    Spoil,
    rows_with,
    shard_row,
    summary_with,
    write_raw,
    write_shards,
    write_splits,
)
from vlm_assets.data.expectations.raw import RawLimits, raw_suites, raw_tables
from vlm_assets.data.expectations.shards import shard_suites, shard_tables
from vlm_assets.data.expectations.splits import split_suites, split_tables
from vlm_assets.data.expectations.suites import CheckedTable, critical, suite, warning
from vlm_assets.data.expectations.validate import Outcome, validate

Tables = Callable[[Path, Spoil], Iterator[CheckedTable]]
Faults = dict[str, dict[str, Spoil]]  # by table, by what the expectation says: data that breaks it


def others(**changes: object) -> Spoil:
    return lambda made: made.others.update(changes)


def tokens(**changes: int) -> Spoil:
    return lambda made: made.summary["tokens"].update(changes)


def ids(*token_ids: int) -> Spoil:
    return rows_with(input_ids=[list(token_ids), [BOS, 7, EOS]])


def no_rows(made: Made) -> None:
    made.rows.clear()


def one_file_grown(shards: Path) -> None:
    """A hole of 210 MB, which takes no room on the disk, between the data and the footer of a file."""
    file = shards / "val-00000.parquet"
    data = file.read_bytes()
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    with file.open("wb") as out:
        out.write(data[:-footer])
        out.seek(210_000_000, 1)
        out.write(data[-footer:])


def one_file_more(shards: Path) -> None:
    (shards / "train-00001.parquet").write_bytes((shards / "train-00000.parquet").read_bytes())


RAW: Faults = {
    "pictures": {
        "there is at least one picture": no_rows,
        "every picture has an id": rows_with(image_id=None),
        "no two pictures share an id": rows_with(image_id=f"{1:016x}"),
        "every picture has a digest of its pixels": rows_with(sha256=None),
        "digests of pixels are sha256 in hexadecimal": rows_with(sha256="XYZ"),
        "no two pictures have the same pixels": rows_with(2, sha256="0" * 64),
        "every picture listed is in a pack": others(packed=[]),
        "every picture has a width": rows_with(width=0),
        "every picture has a height": rows_with(height=0),
        "every picture has a caption": rows_with(captions=[], slots="[]"),
        "slots are declared for all captions of a picture or for none": rows_with(slots="[{}, {}]"),
        "splits that the source prescribes are train, val or test": rows_with(given_splits=["holdout"]),
        "every picture comes from a row of the source": rows_with(copies=0),
        "there are enough pictures to train and to measure on": lambda made: made.rows.__delitem__(slice(49, None)),
        "pictures are in a format that is usual for them": rows_with(format="TIFF"),
        "pictures are not tiny": rows_with(2, height=31),
        "pictures are not strips": rows_with(2, width=193, height=48),
    },
    "captions": {
        "no caption is blank": rows_with(captions=["a picture", " \t"]),
        "no picture has a caption twice": rows_with(captions=["a picture", "a picture"]),
        "captions are sentences, neither single words nor essays": rows_with(7, captions=["picture"]),
        "no character of a caption was lost in decoding": rows_with(captions=["a caf\N{REPLACEMENT CHARACTER}"]),
        "captions differ": rows_with(ROWS, captions=["a picture"]),
    },
    "source": {
        "nearly all rows of the source could be used": summary_with(quarantined=3),
        "copies of a picture are prescribed to one split": summary_with(prescribed_split_conflicts=1),
        "it is said whose data it is": summary_with(attribution={**ATTRIBUTION, "text": ""}),
    },
}
SPLITS: Faults = {
    "pictures": {
        "no two pictures share an id": rows_with(image_id=f"{1:016x}"),
        "no two pictures have the same pixels": rows_with(2, sha256="0" * 64),
        "every picture is in a split": rows_with(split=None),
        "splits are train, val, test or test_<name>": rows_with(split="Train"),
        "there is something to train on": rows_with(ROWS, split="test"),
        "the quality of every picture was measured": rows_with(entropy_bits=None),
        "every picture is in a cluster": rows_with(cluster=None),
        "every picture has a caption": rows_with(captions=[], slots="[]"),
        "slots are declared for all captions of a picture or for none": rows_with(slots="[{}, {}]"),
        "no cluster of near duplicates and group mates is torn between splits": rows_with(cluster=f"{55:016x}"),
        "no caption that trains says a value held out for a test": rows_with(slots='[{"role": "r119", "age": "old"}]'),
        "there is a train, a val and a test split": lambda made: [row.update(split="train") for row in made.rows],
        "between 40 % and 95 % of the pictures train": rows_with(40, split="test"),
        "at most a fifth of the pictures that stay is doubtful": rows_with(25, flags=["blurred"]),
        "no cluster holds more than a fifth of the pictures": rows_with(25, cluster="one"),
    },
    "groups": {"no group of the source (sender, product) is torn between splits": rows_with(groups=["", "g55"])},
    "near_duplicates": {"no two near duplicates are in different splits": others(pairs=[(1, 2), (3, 119)])},
    "splits": {"every split is large enough to measure on": rows_with(19, split="test_unseen_role")},
    "dropped": {
        "at most a fifth of the pictures was dropped": others(dropped=[f"gone {number}" for number in range(31)])
    },
}
SHARDS: Faults = {
    "pictures": {
        "there is at least one picture": no_rows,
        "every picture has an id": rows_with(image_id=None),
        "no picture is in two shards, splits included": lambda made: made.rows.append({**made.rows[0], "split": "val"}),
        "every picture is in the split that validated_splits gave it": rows_with(split="test"),
        "every row holds the bytes of a picture": rows_with(image={"bytes": b"", "path": ""}),
        "every picture has a caption": rows_with(captions=None, input_ids=None),
        "there is one list of token ids per caption": rows_with(captions=["one", "two", "three"]),
    },
    "decoded_sample": {
        "pictures decode, to RGB": rows_with(image={"bytes": b"\x89PNG\r\n\x1a\n", "path": ""}),
        "pictures are as wide as the model's input": rows_with(image=shard_row(1, side_px=64)["image"]),
        "pictures are as high as the model's input": rows_with(image=shard_row(1, side_px=64)["image"]),
    },
    "captions": {
        "token ids start with BOS, as generation does": ids(5, 6, EOS),
        "token ids end with EOS, at which generation stops": ids(BOS, 5, 6),
        "captions are no longer than the model takes": ids(BOS, *[5] * 7, EOS),
        "no token id is negative": ids(BOS, -1, EOS),
        "all token ids are in the model's vocabulary": ids(BOS, 200, EOS),
        "there is a word between BOS and EOS": ids(BOS, EOS),
        "no caption spells out BOS, EOS or padding": ids(BOS, 5, PAD, 6, EOS),
        "at most half of a caption is unknown to the tokenizer": ids(BOS, UNKNOWN, UNKNOWN, 6, EOS),
        "the tokenizer knows nearly all words": rows_with(9, input_ids=[[BOS, UNKNOWN, EOS], [BOS, 7, EOS]]),
    },
    "files": {
        "every file says that it was made by the model's own contract": others(info={"contract_sha256": "0" * 64}),
        "every file is of the split that its name says": others(info={"split": "val"}),
        "no file is far above the size that readers fetch at once": others(files=one_file_grown),
        "all files of a split but the last are full": others(files=one_file_more),
    },
    "splits": {"every split has as many pictures as validated_splits says": lambda made: made.rows.pop()},
    "contract": {
        "pictures and captions were prepared by the model's own contract": summary_with(contract_sha256="0" * 64)
    },
    "truncation": {"few captions are longer than the model takes": tokens(truncated_captions=13)},
}


def tables_of_raw(path: Path, spoil: Spoil) -> Iterator[CheckedTable]:
    return raw_tables(write_raw(path, spoil))


def tables_of_splits(path: Path, spoil: Spoil) -> Iterator[CheckedTable]:
    return split_tables(write_splits(path, spoil))


def tables_of_shards(path: Path, spoil: Spoil) -> Iterator[CheckedTable]:
    write_shards(path, spoil)
    return shard_tables(path / "shards", path / "splits", MODEL)


ARTIFACTS: dict[str, tuple[Tables, Callable[[], list[ExpectationSuite]], Faults]] = {
    "raw": (tables_of_raw, raw_suites, RAW),
    "splits": (tables_of_splits, split_suites, SPLITS),
    "shards": (tables_of_shards, partial(shard_suites, MODEL), SHARDS),
}
EVERY_FAULT = [
    pytest.param(artifact, table, says, id=f"{artifact}: {says}")
    for artifact, (_, _, faults) in ARTIFACTS.items()
    for table, of_table in faults.items()
    for says in of_table
]


def checked(artifact: str, path: Path, spoil: Spoil, table: str = "") -> list[Outcome]:
    """The outcomes for an artifact spoiled by `spoil`, of one table or of all."""
    make, suites, _ = ARTIFACTS[artifact]
    tables = (one for one in make(path, spoil) if table in ("", one.name))
    return validate(tables, suites())


@pytest.mark.parametrize(("artifact", "table", "says"), EVERY_FAULT)
def test_each_expectation_fails_on_its_fault(tmp_path: Path, artifact: str, table: str, says: str):
    (outcome,) = [
        one for one in checked(artifact, tmp_path, ARTIFACTS[artifact][2][table][says], table) if one.says == says
    ]
    assert not outcome.passed
    if "values" in outcome.expectation or outcome.expectation.endswith(("at_most", "in_one_split")):
        aggregate = outcome.expectation.endswith(("contain_set", "proportion_of_unique_values_to_be_between"))
        assert outcome.unexpected_rows > 0 or aggregate, f"it failed of an error: {outcome.observed}"
        assert outcome.examples or aggregate


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_sound_data_passes(artifact: str, tmp_path: Path):
    outcomes = checked(artifact, tmp_path, lambda _: None)
    assert [outcome for outcome in outcomes if not outcome.passed] == []


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_every_expectation_has_a_fault_above(artifact: str):
    _, suites, faults = ARTIFACTS[artifact]
    written = [(one.name, expectation.description) for one in suites() for expectation in one.expectations]
    assert written == [(table, says) for table, of_table in faults.items() for says in of_table]


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_every_expectation_says_what_to_do(artifact: str):
    for one in ARTIFACTS[artifact][1]():
        for expectation in one.expectations:
            assert expectation.severity.value in ("critical", "warning")
            assert str(expectation.notes).endswith("."), expectation.description
            assert expectation.description and not expectation.description.endswith(".")


def the(says: str, outcomes: Sequence[Outcome]) -> Outcome:
    return next(outcome for outcome in outcomes if outcome.says == says)


def test_a_torn_near_duplicate_names_both_pictures(tmp_path: Path):
    torn = the(
        "no two near duplicates are in different splits",
        checked("splits", tmp_path, others(pairs=[(1, 2), (3, 119), (4, 5)]), "near_duplicates"),
    )
    assert (torn.severity, torn.unexpected_rows, torn.observed) == ("critical", 1, "1 of 3 rows break it (33.3 %)")
    assert [(one.row, one.value) for one in torn.examples] == [
        (f"{3:016x} / {119:016x}", "split_a train, split_b test")
    ]


def test_near_duplicates_that_nobody_recorded_are_found(tmp_path: Path):
    """Two test pictures look like training pictures, one of them a level brighter; the splitter wrote nothing of it."""

    def copied(made: Made) -> None:
        made.others["pairs"] = []
        made.others["thumbs"][110] = made.others["thumbs"][5]
        made.others["thumbs"][119] = np.minimum(made.others["thumbs"][7].astype(np.int16) + 1, 255)

    torn = the("no two near duplicates are in different splits", checked("splits", tmp_path, copied, "near_duplicates"))
    assert (torn.severity, torn.unexpected_rows) == ("critical", 2)
    assert [one.row for one in torn.examples] == [f"{5:016x} / {110:016x}", f"{7:016x} / {119:016x}"]


def test_a_near_duplicate_that_was_dropped_tears_nothing(tmp_path: Path):
    assert all(one.passed for one in checked("splits", tmp_path, others(pairs=[(3, 500)]), "near_duplicates"))


def test_pictures_without_a_group_are_no_group(tmp_path: Path):
    outcomes = checked("splits", tmp_path, rows_with(ROWS, groups=[""]), "groups")
    assert the("no group of the source (sender, product) is torn between splits", outcomes).passed


def test_an_example_shows_what_the_row_is_about(tmp_path: Path):
    outcomes = checked("raw", tmp_path, rows_with(7, captions=["picture"]), "captions")
    short = the("captions are sentences, neither single words nor essays", outcomes)
    assert [(one.row, one.value, one.about) for one in short.examples][:1] == [(f"{0:016x}", "1", "picture")]
    assert short.limit == "at least 2, at most 60, in 95 % of the rows"


def outcomes_of(path: Path, says: str, limits: RawLimits, spoil: Spoil) -> Outcome:
    return the(says, validate(raw_tables(write_raw(path, spoil)), raw_suites(limits)))


def test_rows_that_are_skipped_on_purpose_are_no_damage(tmp_path: Path):
    says = "nearly all rows of the source could be used"
    assert outcomes_of(tmp_path, says, RawLimits(), summary_with(skipped=60)).passed
    few = outcomes_of(tmp_path, says, RawLimits(), summary_with(skipped=60, quarantined=2))  # of 60, not of 120
    assert (few.passed, few.observed) == (False, "0.03333")


@pytest.mark.parametrize(
    ("says", "limits", "spoil"),
    [
        ("nearly all rows of the source could be used", RawLimits(max_bad_fraction=0.1), summary_with(quarantined=3)),
        ("pictures are not tiny", RawLimits(min_side_px=16), rows_with(2, height=31)),
        ("pictures are not strips", RawLimits(max_aspect_ratio=5), rows_with(2, width=193, height=48)),
    ],
)
def test_limits_follow_the_settings(tmp_path: Path, says: str, limits: RawLimits, spoil: Spoil):
    for place in ("default", "looser"):
        (tmp_path / place).mkdir()
    assert not outcomes_of(tmp_path / "default", says, RawLimits(), spoil).passed
    assert outcomes_of(tmp_path / "looser", says, limits, spoil).passed


def test_files_are_full_by_the_size_that_was_set(tmp_path: Path):
    """Two files of 0.3 MB: far too little of 128 MB, and too much of a tenth."""
    write_shards(tmp_path, others(files=one_file_more))
    found = {}
    for shard_mb in (128, 1):
        tables = (one for one in shard_tables(tmp_path / "shards", tmp_path / "splits", MODEL) if one.name == "files")
        found[shard_mb] = validate(tables, shard_suites(MODEL, shard_mb))
    full = "all files of a split but the last are full"
    assert not the(full, found[128]).passed and the(full, found[1]).passed
    assert the(full, found[128]).advice.startswith("Raise shard_mb: ")
    assert the("no file is far above the size that readers fetch at once", found[1]).advice.startswith("Lower shard_mb")


def test_of_a_single_row_the_value_is_shown(tmp_path: Path):
    outcomes = checked("raw", tmp_path, summary_with(quarantined=3), "source")
    assert the("nearly all rows of the source could be used", outcomes).observed == "0.025"


def test_a_stray_file_of_shards_is_seen_as_duplicates(tmp_path: Path):
    outcomes = checked("shards", tmp_path, others(files=one_file_more))
    assert the("no picture is in two shards, splits included", outcomes).unexpected_rows == 160
    sizes = the("every split has as many pictures as validated_splits says", outcomes)
    assert [(one.row, one.value) for one in sizes.examples] == [("train", "pictures 160, validated_pictures 80")]


def test_examples_are_rows_that_break_the_expectation():
    frame = pd.DataFrame({"image_id": list("abcdefgh"), "n": [1, 2, None, 4, 5, 5, 7, 8], "m": list("xxyyzzzz")})
    rules = suite(
        "t",
        warning(gxe.ExpectColumnValuesToBeBetween, "n is small", "x.", column="n", max_value=4),
        warning(gxe.ExpectColumnValuesToNotBeNull, "n is there", "x.", column="n"),
        critical(gxe.ExpectColumnValuesToBeUnique, "n is unique", "x.", column="n"),
        critical(gxe.ExpectCompoundColumnsToBeUnique, "m n is unique", "x.", column_list=["m", "n"]),
        critical(gxe.ExpectColumnMaxToBeBetween, "k is small", "x.", column="k", max_value=1),
        warning(gxe.ExpectColumnDistinctValuesToContainSet, "all of m", "x.", column="m", value_set=["x", "w"]),
    )
    outcomes = validate([CheckedTable("t", ("image_id",), frame)], [rules])
    assert [outcome.says for outcome in outcomes] == [one.description for one in rules.expectations], "in order"
    rows = {outcome.says: "".join(example.row for example in outcome.examples) for outcome in outcomes}
    assert rows == {"n is small": "efgh", "n is there": "c", "n is unique": "ef", "m n is unique": "ef"} | {
        "k is small": "",
        "all of m": "",
    }
    assert 'column "k" in BatchData does not exist' in the("k is small", outcomes).observed
    assert the("all of m", outcomes).observed == "missing: w"
