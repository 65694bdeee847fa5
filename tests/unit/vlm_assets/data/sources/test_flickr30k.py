"""Flickr30k's token file and its pipe-separated copy."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.vlm_assets.data.sources.formats import jpeg, pairs, write, write_flickr30k_csv, write_flickr30k_token
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.sources.flickr30k import Flickr30kConfig
from vlm_assets.data.sources.table import TableConfig
from vlm_assets.errors import SourceError


def rows_of(root: Path, **settings: Any) -> list[SourceRow]:
    return list(Flickr30kConfig(path=str(root), **settings).open())


FIRST = (
    "A picture of blocks, number 0 .",
    "A picture of blocks, number 0  .",
    "This is a picture of blocks, number 0 .",
    "A picture of blocks, number 0 in front of nothing .",
    "See: A picture of blocks, number 0!",
)


@pytest.mark.parametrize("writer", [write_flickr30k_token, write_flickr30k_csv], ids=["token", "csv"])
def test_captions_of_one_picture_are_joined(tmp_path: Path, writer: Any):
    rows = rows_of(writer(tmp_path, pairs(3)))
    assert [row.picture for row in rows] == [jpeg(0), jpeg(1), jpeg(2)]
    assert [len(row.captions) for row in rows] == [5, 5, 5]
    assert rows[0].captions == FIRST


def test_the_line_that_lost_its_pipe_is_read(tmp_path: Path):
    write_flickr30k_csv(tmp_path, pairs(2))
    assert "2199200615.jpg| 4   See: A picture" in (tmp_path / "results.csv").read_text()
    row = rows_of(tmp_path)[1]
    assert row.file_name == "2199200615.jpg"
    assert row.captions[4] == "See: A picture of blocks, number 1!"


def test_rows_say_where_they_stand(tmp_path: Path):
    assert rows_of(write_flickr30k_csv(tmp_path / "a", pairs(2)))[1].source_row == "results.csv:7 2199200615.jpg"
    assert rows_of(write_flickr30k_token(tmp_path / "b", pairs(2)))[1].source_row == (
        "results_20130124.token:6 1000092796.jpg"
    )


def test_windows_line_ends_quotes_and_separators_in_captions(tmp_path: Path):
    write(tmp_path / "a.jpg", jpeg(0))
    write(tmp_path / "results.csv", 'image_name| comment_number| comment\r\na.jpg| 0| A sign, "one | two"\x85 .\r\n')
    assert rows_of(tmp_path)[0].captions == ('A sign, "one | two"\x85 .',)


def test_of_two_caption_files_the_token_file_and_of_two_copies_the_upper_is_read(tmp_path: Path):
    write_flickr30k_csv(tmp_path, pairs(2))
    write(tmp_path / "flickr30k_images" / "results.csv", "image_name| comment_number| comment\n")
    assert len(rows_of(tmp_path)) == 2
    write_flickr30k_token(tmp_path, pairs(3))
    assert len(rows_of(tmp_path)) == 3
    assert len(rows_of(tmp_path, annotations="results.csv")) == 2


def test_what_cannot_be_used_comes_with_a_reason(tmp_path: Path):
    lines = [
        "here.jpg#0\tA dog .",
        "gone.jpg#0\tA cat .",
        "here.jpg no caption",
        "",
        "mute.jpg#0\t  ",
        "x.jpg.1#0\tA hen .",
    ]
    write(tmp_path / "here.jpg", jpeg(0))
    write(tmp_path / "mute.jpg", jpeg(1))
    write(tmp_path / "Flickr8k.token.txt", "\n".join(lines))
    assert [(row.source_row, row.reason, row.detail) for row in rows_of(tmp_path)] == [
        ("Flickr8k.token.txt:1 here.jpg", "", ""),
        ("Flickr8k.token.txt:2 gone.jpg", "missing_picture", f"no picture gone.jpg in {tmp_path}"),
        ("Flickr8k.token.txt:5 mute.jpg", "no_caption", "the annotations hold no caption of this picture"),
        ("Flickr8k.token.txt:6 x.jpg.1", "missing_picture", f"no picture x.jpg.1 in {tmp_path}"),
        ("Flickr8k.token.txt:3", "malformed_line", "no picture, number and caption in 'here.jpg no caption'"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "results.csv is empty (0 bytes). Fetch the file again."),
        (b" \n\n", "results.csv is blank."),
        (
            b"a.jpg| 0| A dog\nb.jpg| 0| caf\xe9\n",
            "results.csv:2: not UTF-8 (invalid continuation byte at byte 14 of the",
        ),
        (
            b"a.jpg,A dog\nb.jpg,A cat\n",
            "no line is `name.jpg#0<tab>caption` or `name.jpg| 0| caption`; the first is 'a.j",
        ),
        (b'{"images": []}', "results.csv holds no captions of Flickr30k"),
        (b'{"images": []}', "the first is '{\"images\": []}'. A JSON split file is read by the source kind coco."),
        (b"a.jpg| 0| A dog\n", "None of the 1 pictures that the annotations name is in "),
    ],
)
def test_faulty_files_are_one_clear_error(tmp_path: Path, content: bytes, message: str):
    write(tmp_path / "results.csv", content)
    with pytest.raises(SourceError, match=re.escape(message)):
        rows_of(tmp_path)


def test_a_folder_without_captions_tells_what_it_has(tmp_path: Path):
    write(tmp_path / "dataset_flickr30k.json", "{}")
    with pytest.raises(
        SourceError, match=r"no results_\*.token and no \*.token.txt and no results.csv; it has dataset_flickr30k.json"
    ):
        rows_of(tmp_path)


KAGGLE = (
    "image,caption\n1000268201_693b08cb0e.jpg,A child in a pink dress .\n"
    '1000268201_693b08cb0e.jpg,"A girl , climbing ."\n'
)
KAGGLE_30K = "image_name,comment_number,comment\n1000092795.jpg,0,Two young guys .\n1000092795.jpg,1,Two men .\n"
HUB = (
    "raw,sentids,split,filename,img_id\n"
    '"[""Two young guys with \\u00e9lan."", ""Two \'males\' are outside.""]","[0, 1]",train,1000092795.jpg,0\n'
)


@pytest.mark.parametrize(
    ("name", "content", "settings", "captions"),
    [
        (
            "captions.txt",
            KAGGLE,
            "picture_column: image, caption_columns: [caption]",
            ("A child in a pink dress .", "A girl , climbing ."),
        ),
        (
            "captions.txt",
            KAGGLE_30K,
            "picture_column: image_name, caption_columns: [comment]",
            ("Two young guys .", "Two men ."),
        ),
        (
            "flickr_annotations_30k.csv",
            HUB,
            "picture_column: filename, caption_columns: [raw], split_column: split",
            ("Two young guys with élan.", "Two 'males' are outside."),
        ),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_captions_in_a_table_are_refused_with_the_way_out_and_the_way_leads_out(
    tmp_path: Path, name: str, content: str, settings: str, captions: tuple[str, ...], named: bool
):
    write(tmp_path / name, content)
    write(tmp_path / "Images" / ("1000268201_693b08cb0e.jpg" if content == KAGGLE else "1000092795.jpg"), jpeg(0))
    with pytest.raises(SourceError) as refused:
        rows_of(tmp_path, **({"annotations": name} if named else {}))
    hint = f"{name} is a table with a header, which the source kind table reads: table: {name}, {settings}, and"
    assert hint in str(refused.value)
    way_out = yaml.safe_load("{" + settings + "}")
    first, *others = TableConfig(path=str(tmp_path), table=name, pictures="Images", **way_out).open()
    assert tuple(text for row in (first, *others) for text in row.captions) == captions
    assert (first.picture, all(row.repeats for row in others)) == (jpeg(0), True)
    assert first.split == ("train" if "split_column" in way_out else "")
