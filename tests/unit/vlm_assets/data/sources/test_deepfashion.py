"""DeepFashion-MultiModal and In-shop Clothes Retrieval."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vlm_assets.data.sources.formats import jpeg, pairs, write, write_inshop, write_multimodal
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.sources.deepfashion import DeepFashionConfig
from vlm_assets.errors import SourceError


def rows_of(root: Path, **settings: Any) -> list[SourceRow]:
    return list(DeepFashionConfig(path=str(root), **settings).open())


def test_multimodal_pictures_of_one_item_are_one_group(tmp_path: Path):
    rows = rows_of(write_multimodal(tmp_path, pairs(4)))
    assert [row.picture for row in rows] == [jpeg(seed) for seed in range(4)]
    assert [row.captions for row in rows] == [(caption,) for _, caption in pairs(4)]
    assert [row.group for row in rows] == ["id_00000000", "id_00000000", "id_00000001", "id_00000001"]
    assert rows[1].file_name == "WOMEN-Rompers_Jumpsuits-id_00000000-01_7_additional.jpg"
    assert rows[1].source_row == f"captions.json {rows[1].file_name}"


def test_a_file_name_that_stands_twice_keeps_both_captions(tmp_path: Path):
    write(tmp_path / "a.jpg", jpeg(0))
    write(tmp_path / "captions.json", '{"a.jpg": "A coat. ", "a.jpg": "A long coat."}')
    assert [row.captions for row in rows_of(tmp_path)] == [("A coat.", "A long coat.")]


def test_multimodal_rows_that_cannot_be_used(tmp_path: Path):
    write(tmp_path / "a.jpg", jpeg(0))
    write(
        tmp_path / "captions.json", {"a.jpg": 7, "b.jpg": "gone", "c.jpg": "", "images/../a.jpg": "x", "./a.jpg": "y"}
    )
    rows = rows_of(tmp_path)
    assert [(row.file_name, row.reason) for row in rows] == [
        ("a.jpg", "malformed_caption"),
        ("b.jpg", "missing_picture"),
        ("c.jpg", "no_caption"),
        ("images/../a.jpg", "missing_picture"),
        ("./a.jpg", ""),
    ]
    assert rows[0].detail == "the caption is '7', no text"


def test_inshop_items_are_joined_with_their_pictures(tmp_path: Path):
    rows = rows_of(write_inshop(tmp_path, pairs(4)))
    assert [row.picture for row in rows] == [jpeg(seed) for seed in range(4)]
    assert [row.captions for row in rows] == [(pairs(4)[seed][1],) for seed in (0, 0, 2, 2)], (
        "of the item's first picture"
    )
    assert [row.group for row in rows] == ["id_00000001", "id_00000001", "id_00000002", "id_00000002"]
    assert rows[0].source_row == (
        "list_description_inshop.json id_00000001 img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg"
    )


def test_inshop_descriptions_whole(tmp_path: Path):
    rows = rows_of(write_inshop(tmp_path, pairs(2)), description="whole")
    assert rows[0].captions == (
        "A picture of blocks, number 0. It fits a 5.5 in. heel. - Woven, lightweight 100% polyester Hand wash cold",
    )


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("A 5.5 in. heel and a bow. Buy it!", "A 5.5 in. heel and a bow."),
        ('Say "yes." Then go.', 'Say "yes."'),
        ("A shirt of J. Crew (size 4.) Wear it.", "A shirt of J. Crew (size 4.)"),
        ("No full stop", "No full stop"),
        ("Is it a dress? It is.", "Is it a dress?"),
    ],
)
def test_the_first_sentence_of_a_description(tmp_path: Path, line: str, sentence: str):
    write(tmp_path / "id_00000001" / "1.jpg", jpeg(0))
    write(tmp_path / "list_description_inshop.json", [{"item": "id_00000001", "color": "Red", "description": [line]}])
    assert rows_of(tmp_path)[0].captions == (sentence,)


def test_a_colour_is_a_slot_where_the_caption_says_it(tmp_path: Path):
    for item in ("id_00000001", "id_00000002"):
        write(tmp_path / item / "1.jpg", jpeg(int(item[-1])))
    items = [
        {"item": "id_00000001", "color": "Heather-grey", "description": ["A heather grey coat."]},
        {"item": "id_00000002", "color": "Red", "description": "A bored coat."},
    ]
    write(tmp_path / "list_description_inshop.json", items)
    assert [row.slots for row in rows_of(tmp_path)] == [({"color": "heather grey"},), ()]


def test_the_partition_is_honoured_and_tears_no_item(tmp_path: Path):
    write_inshop(tmp_path, pairs(120))
    rows = rows_of(tmp_path)
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.group, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values()), "no item is torn"
    count = [row.split for row in rows].count
    assert (count("train"), count("test")) == (80, 40)
    assert {row.split for row in rows_of(tmp_path, given_splits=False)} == {""}


def test_without_a_partition_pictures_are_found_by_their_item_and_masks_are_left_out(tmp_path: Path):
    rows = rows_of(write_inshop(tmp_path, pairs(4), partition=False))
    assert [row.picture for row in rows] == [jpeg(seed) for seed in range(4)]
    assert {row.split for row in rows} == {""}


@pytest.mark.parametrize("folder", ["Img", "Img/img"])
def test_the_pictures_of_the_partition_are_found_with_and_without_img(tmp_path: Path, folder: str):
    write_inshop(tmp_path, pairs(4))
    rows = rows_of(tmp_path, pictures=str(tmp_path / folder))
    assert [row.picture for row in rows] == [jpeg(seed) for seed in range(4)]


def test_of_two_sizes_the_one_that_the_partition_names_is_taken(tmp_path: Path):
    write_inshop(tmp_path, pairs(4))
    for file in sorted((tmp_path / "Img" / "img").rglob("*.jpg")):
        write(tmp_path / "Img" / "img_highres" / file.relative_to(tmp_path / "Img" / "img"), jpeg(9))
    assert [row.picture for row in rows_of(tmp_path)] == [jpeg(seed) for seed in range(4)]


def test_inshop_rows_that_cannot_be_used(tmp_path: Path):
    for item in ("id_00000001", "id_00000002", "id_00000003", "id_00000004"):
        write(tmp_path / item / "1.jpg", jpeg(int(item[-1])))
    items: list[Any] = [
        {"item": "id_00000001", "color": "Red", "description": ["A coat."]},
        {"item": "id_00000002", "color": "Red", "description": []},
        {"item": "id_00000003", "color": "Red", "description": [7]},
        {"item": "id_00000009", "color": "Red", "description": ["Gone."]},
        {"color": "Red"},
    ]
    write(tmp_path / "list_description_inshop.json", items)
    assert [(row.source_row.partition(" ")[2], row.reason) for row in rows_of(tmp_path)] == [
        ("id_00000001 id_00000001/1.jpg", ""),
        ("id_00000002 id_00000002/1.jpg", "no_caption"),
        ("id_00000003 id_00000003/1.jpg", "malformed_item"),
        ("id_00000004 id_00000004/1.jpg", "no_caption"),
        ("id_00000009", "missing_picture"),
        ("entry number 5", "malformed_item"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "captions.json",
            '{"a.jpg": "x",\n "b.jpg"}',
            "captions.json:2: not JSON (Expecting ':' delimiter at column 9). Exp",
        ),
        (
            "captions.json",
            '{"images": [], "annotations": []}',
            "captions.json names no picture; its keys are annotations, im",
        ),
        ("captions.json", '"text"', "captions.json holds no list of items. Expected list_description_inshop.json"),
        ("list_description_inshop.json", "[]", "holds no list of items."),
        (
            "list_description_inshop.json",
            '[{"item_id": "id_00000001", "description": []}]',
            "the list's objects have no 'item'; they have description, item_id. Did you mean 'item_id'?",
        ),
        (
            "list_description_inshop.json",
            '[{"item": "id_1", "color": "x"}]',
            "have no 'description'; they have color, item.",
        ),
    ],
)
def test_faulty_files_are_one_clear_error(tmp_path: Path, name: str, content: str, message: str):
    write(tmp_path / name, content)
    with pytest.raises(SourceError, match=re.escape(message)):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4\nimage", "5\nimage", "announces 5 pictures and lists 4. Fetch the file again."),
        (
            "image_name item_id",
            "name id",
            "txt:2: expected image_name item_id evaluation_status, found 'name id evaluation_",
        ),
        ("gallery", "spare", "txt:4: expected a name, an item and train, query, gallery; found ["),
    ],
)
def test_a_damaged_partition_is_one_clear_error(tmp_path: Path, old: str, new: str, message: str):
    write_inshop(tmp_path, pairs(4))
    file = tmp_path / "Eval" / "list_eval_partition.txt"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SourceError, match=re.escape(message)):
        rows_of(tmp_path)


def test_fingerprint_follows_descriptions_partition_and_settings(tmp_path: Path):
    write_inshop(tmp_path, pairs(6))

    def fingerprint(**settings: Any) -> str:
        return DeepFashionConfig(path=str(tmp_path), **settings).open().fingerprint()

    before, whole, unsplit = fingerprint(), fingerprint(description="whole"), fingerprint(given_splits=False)
    assert fingerprint() == before
    file = tmp_path / "Anno" / "list_description_inshop.json"
    file.write_text(json.dumps(json.loads(file.read_text())[::-1], indent=1))
    assert fingerprint() == before, "the order of the descriptions is of no account, the partition's is"
    partition = tmp_path / "Eval" / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace("query", "train"))
    assert len({before, whole, unsplit, fingerprint()}) == 4
