import io
import json
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.vlm_assets.data.memory import peak_bytes
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
    assert [row.captions for row in rows] == [("a red coat",), ("a blue coat", "a coat"), ("a long coat",)]
    assert [row.group for row in rows] == ["", "7", ""]
    assert [row.split for row in rows] == ["", "val", ""]
    assert [row.picture for row in rows] == [png(0), png(1), None], "a picture is read once"
    assert [(row.file_name, row.repeats) for row in rows[::2]] == [("a.png", False), ("a.png", True)]
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
        (
            b'{"filename": "a.png", "text": "x"}\n',
            r"metadata.jsonl has no column 'file_name'; it has filename, text\. Did you mean 'filename'\? Each row",
        ),
        (b"[1]\n", r"metadata.jsonl:1: not a JSON object: '\[1\]"),
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


def test_every_row_of_a_picture_says_its_own(tmp_path: Path):
    said = (("", "0"), ("x", "1"), ("y", ""), ("z", "2"))
    lines = [{"file_name": "a.png", "text": word, "who": who} for word, who in said]
    source = ImageFolderSource(write_folder(tmp_path, lines), group_column="who")
    found = list(source)
    assert [(row.captions, row.group, row.repeats, row.reason) for row in found] == [
        ((), "", False, "no_caption"),
        (("x",), "1", False, ""),
        (("y",), "", True, ""),
        (("z",), "2", True, ""),
    ]
    assert source.total() == 4


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


def test_cells_that_cannot_be_read_put_their_row_aside_and_no_other(place: Place):
    lines: list[dict[str, object]] = [
        {"file_name": "a.png", "text": "a coat"},
        {"text": "a coat without a name"},
        {"file_name": 42, "text": "a number"},
        {"file_name": float("nan"), "text": "not a name"},
        {"file_name": "b.png", "text": 7},
        {"file_name": "c.png", "text": float("nan")},  # as json.dumps writes what pandas has for nothing
        {"file_name": "d.png", "text": ["a hat", None, float("nan")]},
        {"file_name": "e.png", "text": "a shoe", "split": "holdout"},
        {"file_name": "https://x.org/f.png", "text": "a bag"},
    ]
    place.put("metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    for seed, name in enumerate("abcde"):
        place.put(f"{name}.png", png(seed))
    found = list(ImageFolderSource(place.root))
    assert [(row.source_row, row.reason) for row in found] == [
        ("metadata.jsonl:1 a.png", ""),
        ("metadata.jsonl:2", "no_file_name"),
        ("metadata.jsonl:3", "no_file_name"),
        ("metadata.jsonl:4", "no_file_name"),
        ("metadata.jsonl:5 b.png", "malformed_caption"),
        ("metadata.jsonl:6 c.png", "no_caption"),
        ("metadata.jsonl:7 d.png", ""),
        ("metadata.jsonl:8 e.png", "unknown_split"),
        ("metadata.jsonl:9", "picture_is_a_url"),
    ], "and no picture that a faulty row names is an orphan besides"
    assert found[6].captions == ("a hat",)
    assert [row.detail for row in found[1:5]] == [
        "'file_name' holds nothing; expected the picture's name",
        "'file_name' holds 42; expected the picture's name",
        "'file_name' holds nothing; expected the picture's name",
        "'text' holds 7; expected a string or a list of strings",
    ]
    assert found[7].detail.startswith("unknown split 'holdout'; use one of train, ")


NAMES = {  # what the metadata says: what the file is called
    "stra\u00dfe/caf\u00e9.png": "stra\u00dfe/cafe\u0301.png",  # macOS takes letters apart
    "A.JPG": "a.jpg",
    "sub\\b.png": "sub/b.png",
    ".\\sub\\C.png": "sub/c.png",
    "d.png": "d.png",
}


def test_names_that_differ_in_spelling_alone_find_their_files(place: Place):
    write_metadata(place, "metadata.jsonl", [{"file_name": name, "text": name} for name in NAMES])
    for seed, name in enumerate(NAMES.values()):
        place.put(name, png(seed))
    place.put("D.png", png(90))  # d.png is there to the letter
    found = list(ImageFolderSource(place.root))
    assert [(row.file_name, row.reason) for row in found] == [
        *((name, "") for name in NAMES.values()),
        ("D.png", "no_metadata_line"),
    ]
    assert [row.picture for row in found[:-1]] == [png(seed) for seed in range(len(NAMES))]


def test_a_missing_picture_comes_with_the_names_that_come_near(place: Place):
    names = ["a.jpeg", "b.png", "E.png", "../f.png", "none.png"]
    write_metadata(place, "metadata.jsonl", [{"file_name": name, "text": "x"} for name in names])
    for name in ("a.jpg", "images/b.png", "e.PNG", "e.png", "f.png"):
        place.put(name, png(1))
    assert [row.detail for row in ImageFolderSource(place.root) if row.reason == "missing_picture"] == [
        "no picture a.jpeg in the folder; there is a.jpg",
        "no picture b.png in the folder; there is images/b.png",
        "no picture E.png in the folder, and several that differ in spelling alone: e.PNG and e.png",
        "no picture ../f.png in the folder; there is f.png",
        "no picture none.png in the folder",
    ]


def test_whatever_the_metadata_names_is_read_whatever_its_suffix(place: Place):
    names = ["a.heic", "b", "c.jfif"]
    write_metadata(place, "metadata.jsonl", [{"file_name": name, "text": "x"} for name in names])
    for seed, name in enumerate(names):
        place.put(name, png(seed))
    place.put("d.avif", png(5))
    place.put("notes.txt", b"no picture, and none of our business")
    source = ImageFolderSource(place.root)
    assert [(row.file_name, row.reason) for row in source] == [
        *((name, "") for name in names),
        ("d.avif", "no_metadata_line"),
    ]
    before = source.fingerprint()
    place.put("b", png(9))
    assert ImageFolderSource(place.root).fingerprint() != before


def test_of_metadata_with_large_columns_only_those_read_are_taken(tmp_path: Path):
    rows = 60
    columns = {"file_name": [f"{n}.png" for n in range(rows)], "text": ["x"] * rows, "blob": [bytes(1 << 20)] * rows}
    pq.write_table(pa.table(columns), tmp_path / "metadata.parquet", row_group_size=10, use_dictionary=False)
    assert peak_bytes(ImageFolderSource(tmp_path).total) < 10_000_000


def test_what_the_set_is_called_and_what_is_allowed(tmp_path: Path):
    plain = ImageFolderConfig(path=str(tmp_path)).open().attribution
    assert (plain.title, plain.licence) == (tmp_path.name, "")
    named = ImageFolderConfig(path=str(tmp_path), title="Coats", licence="CC0 1.0").open().attribution
    assert (named.title, named.licence) == ("Coats", "CC0 1.0")
