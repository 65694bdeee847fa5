import io
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.unit.vlm_assets.data.pictures import png, write_folder
from tests.unit.vlm_assets.data.sources.places import Place
from vlm_assets.data.sources.image_folder import ImageFolderConfig, ImageFolderSource
from vlm_assets.errors import SourceError
from vlm_serving.images import DEFAULT_LIMITS


def test_text_captions_and_repeated_lines(tmp_path: Path):
    write_folder(
        tmp_path,
        [
            {"file_name": "a.png", "text": " a red coat "},
            {"file_name": "sub/b.png", "text": ["a blue coat", "a coat"], "who": 7, "split": "validation"},
            {"file_name": "a.png", "text": "a long coat"},
        ],
    )
    rows = list(ImageFolderSource(tmp_path, group_column="who"))
    assert [row.captions for row in rows] == [("a red coat", "a long coat"), ("a blue coat", "a coat")]
    assert [row.group for row in rows] == ["", "7"]
    assert [row.split for row in rows] == ["", "val"]
    assert [row.picture for row in rows] == [png(0), png(1)]
    assert rows[1].source_row == "metadata.jsonl:2 sub/b.png"


@pytest.mark.parametrize(("column", "setting"), [("captions", ""), ("alt", "alt")])
def test_caption_columns(tmp_path: Path, column: str, setting: str):
    write_folder(tmp_path, [{"file_name": "a.png", column: ["one", "two"]}])
    assert next(iter(ImageFolderSource(tmp_path, setting))).captions == ("one", "two")


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path):
    write_folder(tmp_path, [{"file_name": "ä.png", "text": "grün"}])
    file = tmp_path / "metadata.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes() + b"\n\n")
    assert next(iter(ImageFolderSource(tmp_path))).captions == ("grün",)


def test_rows_without_picture_and_pictures_without_row_come_with_reasons(tmp_path: Path):
    write_folder(
        tmp_path,
        [
            {"file_name": "gone.png", "text": "x"},
            {"file_name": "silent.png", "text": ""},
            {"file_name": "good.png", "text": "y"},
            {"file_name": "../outside.png", "text": "z"},
        ],
        names=["silent.png", "good.png", "extra.png"],
    )
    (tmp_path.parent / "outside.png").write_bytes(png(0))
    source = ImageFolderSource(tmp_path)
    assert {row.source_row.split(" ")[-1]: row.reason for row in source} == {
        "gone.png": "missing_picture",
        "silent.png": "no_caption",
        "good.png": "",
        "../outside.png": "missing_picture",
        "extra.png": "no_metadata_line",
    }
    assert source.total() == 5


def test_fingerprint_follows_captions_and_pictures(tmp_path: Path):
    write_folder(tmp_path, [{"file_name": "a.png", "text": "x"}])
    before = ImageFolderSource(tmp_path).fingerprint()
    assert ImageFolderSource(tmp_path).fingerprint() == before
    (tmp_path / "a.png").write_bytes(png(5))
    painted = ImageFolderSource(tmp_path).fingerprint()
    write_folder(tmp_path, [{"file_name": "a.png", "text": "y"}], names=["b.png"])
    assert len({before, painted, ImageFolderSource(tmp_path).fingerprint()}) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "metadata.jsonl is empty"),
        (b'{"file_name": "a.png", "text": "x"}\n{"file_name": \n', r"metadata.jsonl:2: not a JSON object \(Expecting"),
        (b'{"file_name": "a.png", "text": "\xff"}\n', "metadata.jsonl:1: not UTF-8"),
        (b'{"picture": "a.png", "text": "x"}\n', "metadata.jsonl:1: no 'file_name' in"),
        (b"[1]\n", r"metadata.jsonl:1: not a JSON object: '\[1\]"),
        (b'{"file_name": "a.png", "text": 7}\n', "metadata.jsonl:1: 'text' holds 7; expected a string or a list"),
        (b'{"file_name": "a.png", "text": "x", "split": "holdout"}\n', "metadata.jsonl:1: unknown split 'holdout'"),
        (
            b'{"file_name": "a.png", "caption": "x"}\n',
            "has no column 'text' or 'captions'; it has caption, file_name. Did you mean 'caption'\\?",
        ),
    ],
)
def test_faulty_metadata_is_named_with_its_line(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "metadata.jsonl").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        list(ImageFolderSource(tmp_path))


def test_a_column_that_is_not_there_names_those_that_are(tmp_path: Path):
    write_folder(tmp_path, [{"file_name": "a.png", "text": "x", "sender": 1}])
    with pytest.raises(
        SourceError, match=r"has no column 'sendr'; it has file_name, sender, text\. Did you mean 'sender'"
    ):
        list(ImageFolderSource(tmp_path, group_column="sendr"))
    with pytest.raises(SourceError, match=re.escape("Set caption_column to the one to read.")):
        list(ImageFolderSource(tmp_path, caption_column="zzz"))


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(SourceError, match=f"The folder {tmp_path}/nowhere does not exist. Set source"):
        ImageFolderSource(tmp_path / "nowhere").fingerprint()
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="file is not a folder"):
        ImageFolderSource(tmp_path / "file").total()
    with pytest.raises(SourceError, match=r"has no metadata\.jsonl, \.csv or \.parquet\. Write one line per picture"):
        ImageFolderSource(tmp_path).total()


def write_metadata(place: Place, name: str, rows: list[dict[str, object]]) -> None:
    """One table in the format that the suffix tells."""
    frame = pd.DataFrame(rows)
    if name.endswith(".parquet"):
        buffer = io.BytesIO()
        frame.to_parquet(buffer)
        place.put(name, buffer.getvalue())
    elif name.endswith(".csv"):
        place.put(name, frame.to_csv(index=False).encode())
    else:
        place.put(name, frame.to_json(orient="records", lines=True).encode())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_metadata_of_every_kind_says_the_same(place: Place, kind: str):
    rows = [{"file_name": "sub/a.png", "text": "a red coat", "shop": "north"}, {"file_name": "b.png", "text": "grün"}]
    write_metadata(place, f"metadata.{kind}", rows)
    place.put("sub/a.png", png(0))
    place.put("b.png", png(1))
    found = list(ImageFolderSource(place.root, group_column="shop"))
    assert [(row.file_name, row.picture, row.captions, row.group) for row in found] == [
        ("sub/a.png", png(0), ("a red coat",), "north"),
        ("b.png", png(1), ("grün",), ""),
    ]


def test_folders_of_splits_have_metadata_of_their_own(place: Place):
    for seed, split in enumerate(("train", "validation", "test")):
        write_metadata(place, f"{split}/metadata.csv", [{"file_name": "a.png", "text": split}])
        place.put(f"{split}/a.png", png(seed))
    found = {row.file_name: (row.split, row.captions, row.picture) for row in ImageFolderSource(place.root)}
    assert found == {
        "train/a.png": ("train", ("train",), png(0)),
        "validation/a.png": ("val", ("validation",), png(1)),
        "test/a.png": ("test", ("test",), png(2)),
    }


def test_rows_of_one_picture_in_two_groups_are_not_merged_into_one(tmp_path: Path):
    lines = [{"file_name": "a.png", "text": word, "who": who} for word, who in (("x", "1"), ("y", ""), ("z", "2"))]
    found = list(ImageFolderSource(write_folder(tmp_path, lines), group_column="who"))
    assert [(row.captions, row.group) for row in found] == [(("x", "y"), "1"), (("z",), "2")]


def test_a_ragged_line_and_a_huge_file_are_put_aside(tmp_path: Path):
    write_folder(tmp_path, [], names=["a.png", "b.png"])
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a red, long coat\nb.png,a hat\n")
    with (tmp_path / "b.png").open("wb") as file:
        file.truncate(DEFAULT_LIMITS.max_bytes + 1)
    assert [(row.reason, row.detail) for row in ImageFolderSource(tmp_path)] == [
        ("ragged_line", "3 cells, the header names 2: a.png | a red |  long coat"),
        ("picture_too_large", "20,971,521 bytes, the limit is 20,971,520"),
        ("no_metadata_line", "metadata.csv has no line with this file_name"),
    ]


def test_metadata_of_two_kinds_is_refused(place: Place):
    for kind in ("csv", "jsonl"):
        write_metadata(place, f"metadata.{kind}", [{"file_name": "a.png", "text": "x"}])
    with pytest.raises(
        SourceError, match=r"has metadata of several kinds: metadata\.csv, metadata\.jsonl\. Keep those"
    ):
        ImageFolderSource(place.root).total()


def test_a_column_file_name_that_is_called_otherwise(place: Place):
    write_metadata(place, "metadata.csv", [{"filename": "a.png", "text": "x"}])
    with pytest.raises(SourceError, match=r"metadata\.csv:2: no 'file_name' in \{'filename': 'a\.png'"):
        ImageFolderSource(place.root).total()


def test_what_the_set_is_called_and_what_is_allowed(tmp_path: Path):
    plain = ImageFolderConfig(path=str(tmp_path)).open().attribution
    assert (plain.title, plain.licence) == (tmp_path.name, "")
    named = ImageFolderConfig(path=str(tmp_path), title="Coats", licence="CC0 1.0").open().attribution
    assert (named.title, named.licence) == ("Coats", "CC0 1.0")
