import re
from pathlib import Path

import pytest

from tests.unit.vlm_assets.data.pictures import png, write_folder
from vlm_assets.data.sources.image_folder import ImageFolderSource
from vlm_assets.errors import SourceError


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
