"""A table of labels, as the clothing set is one: captions by template, orphans both ways, every row accounted for."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.vlm_assets.data.memory import peak_bytes
from tests.unit.vlm_assets.data.pictures import png
from tests.unit.vlm_assets.data.sources.places import Place
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.sources.table import TableConfig
from vlm_assets.errors import ConfigError, SourceError

CLOTHES = """image,sender_id,label,kids
a,1,Dress,False
b,1,Longsleeve,True
c,2,Outfit,True
d,3,Pants,False
e,3,Not sure,False
gone,4,Skirt,False
f,4,,False
,5,Skirt,False
g,5,Skirt, too,False
../h,6,Skirt,False
"""


@pytest.fixture
def clothes(place: Place) -> Place:
    """The clothing set in small: images.csv in Windows' spelling, images/, one of them without a row."""
    place.put("images.csv", b"\xef\xbb\xbf" + CLOTHES.replace("\n", "\r\n").encode())
    for seed, name in enumerate("abcdefgx"):
        place.put(f"images/{name}.jpg", png(seed))
    place.put("h.jpg", png(99))
    return place


def config(place: Place, **changes: Any) -> TableConfig:
    base: dict[str, Any] = {
        "path": place.root,
        "table": "images.csv",
        "pictures": "images",
        "picture_column": "image",
        "extension": ".jpg",
        "templates": [{"when": {"kids": "True"}, "text": "{label:a} for kids"}, {"text": "{label:a}"}],
        "skip_where": {"label": ["Not sure"]},
        "replace": {"label": {"Longsleeve": "Long-sleeved shirt"}, "kids": {"True": "kids", "False": ""}},
        "lowercase": ["label"],
        "slots": ["label", "kids"],
        "group_column": "sender_id",
    }
    return TableConfig(**{**base, **changes})


def rows(place: Place, **changes: Any) -> list[SourceRow]:
    source = config(place, **changes).open()
    found = list(source)
    assert source.total() == len(found)
    return found


def test_labels_become_captions_slots_and_groups(clothes: Place):
    usable = [row for row in rows(clothes) if row.picture is not None]
    assert [row.captions for row in usable] == [
        ("a dress",),
        ("a long-sleeved shirt for kids",),
        ("an outfit for kids",),
        ("pants",),
    ]
    assert [row.slots[0] for row in usable][:2] == [
        {"label": "dress", "kids": ""},
        {"label": "long-sleeved shirt", "kids": "kids"},
    ]
    assert [row.group for row in usable] == ["1", "1", "2", "3"]
    assert [row.file_name for row in usable] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert usable[0].picture == png(0)
    assert usable[0].source_row == "images.csv:2 a.jpg"


def test_every_other_row_and_picture_has_its_reason(clothes: Place):
    unusable = [row for row in rows(clothes) if row.picture is None]
    assert [(row.source_row, row.reason) for row in unusable] == [
        ("images.csv:6 e.jpg", "skipped label=Not sure"),
        ("images.csv:7 gone.jpg", "missing_picture"),
        ("images.csv:8 f.jpg", "no_caption"),
        ("images.csv:9", "missing_picture"),
        ("images.csv:10", "ragged_line"),
        ("images.csv:11 ../h.jpg", "missing_picture"),
        ("g.jpg", "no_table_row"),
        ("x.jpg", "no_table_row"),
    ]
    details = [row.detail for row in unusable]
    assert details[2] == "label is empty, which '{label:a}' says"
    assert details[3] == "'image' is empty"
    assert details[4] == "5 cells, the header names 4: g | 5 | Skirt |  too | False"
    assert details[6] == "no row of images.csv names this picture"


def test_pictures_that_no_row_names_may_be_none_of_our_business(clothes: Place):
    quiet = config(clothes, report_unlisted=False).open()
    assert Counter(row.reason for row in quiet)["no_table_row"] == 0
    before = quiet.fingerprint()
    clothes.put("images/y.jpg", png(50))
    assert config(clothes, report_unlisted=False).open().fingerprint() == before
    assert config(clothes).open().fingerprint() != before


def test_the_fingerprint_follows_table_and_pictures(clothes: Place):
    seen = [config(clothes).open().fingerprint()]
    assert config(clothes).open().fingerprint() == seen[0]
    clothes.put("images/a.jpg", png(40))
    seen.append(config(clothes).open().fingerprint())
    clothes.put("images.csv", CLOTHES.replace("Dress", "Coat").encode())
    seen.append(config(clothes).open().fingerprint())
    assert len(set(seen)) == 3


def test_caption_columns_splits_and_rows_that_share_a_picture(place: Place):
    buffer = io.BytesIO()
    frame = pd.DataFrame(
        {
            "file": ["a.png", "a.png", "b.png", "b.png", "c.png"],
            "title": ["a coat", "a coat", "a hat", "a cap", "x"],
            "more": [["a red coat"], ["a long coat"], None, None, ["x"]],
            "product": [7.0, 7.0, 8.0, 9.0, float("nan")],
            "part": ["train", "", "test", "validation", None],
        }
    )
    frame.to_parquet(buffer)
    place.put("t.parquet", buffer.getvalue())
    for seed, name in enumerate("abc"):
        place.put(f"{name}.png", png(seed))
    found = rows(
        place,
        table="t.parquet",
        pictures="",
        picture_column="file",
        extension="",
        templates=[],
        caption_columns=["title", "more"],
        skip_where={},
        replace={},
        lowercase=[],
        slots=[],
        group_column="product",
        split_column="part",
    )
    assert [(row.file_name, row.repeats, row.captions, row.group, row.split) for row in found] == [
        ("a.png", False, ("a coat", "a red coat"), "7", "train"),
        ("a.png", True, ("a coat", "a long coat"), "7", ""),
        ("b.png", False, ("a hat",), "8", "test"),
        ("b.png", True, ("a cap",), "9", "val"),  # another product, another split: the splits say what becomes of it
        ("c.png", False, ("x",), "", ""),
    ]


def test_pictures_may_lie_elsewhere(clothes: Place, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = tmp_path_factory.mktemp("pictures")
    (elsewhere / "a.jpg").write_bytes(png(77))
    found = rows(clothes, pictures=str(elsewhere))
    assert [row.picture for row in found if row.picture] == [png(77)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_column": "sender"}, r"no column 'sender'; it has .* Did you mean 'sender_id'\? Set group_column"),
        ({"picture_column": "Image"}, r"no column 'Image'; it has .* Did you mean 'image'\? Set picture_column"),
        ({"templates": [{"text": "{labl}"}]}, r"no column 'labl'; it has .* Did you mean 'label'\? Set templates"),
        (
            {"slots": ["colour"], "lowercase": ["lable"]},
            r"(?s)no column 'lable'.* Set lowercase.*\n.*no column 'colour'",
        ),
        ({"skip_where": {"label": ["Not Sure"]}}, r"skip_where\.label names 'Not Sure', and .* has 'Not sure'\. Write"),
        ({"replace": {"kids": {"true": "x"}}}, r"replace\.kids names 'true', and .* has 'True'"),
        ({"extension": ""}, r"None of the 6 pictures that .* the first is 'a'\. There is 'a\.jpg': set extension to '"),
        ({"extension": ".png"}, r"None of the 6 pictures .* the first is 'a\.png'\. Check source\.table\.pictures"),
        ({"pictures": "img"}, r"(The folder .*img does not exist|img holds no objects).*source\.table\.pictures"),
        (
            {"table": "image.csv"},
            r"There is no table .*set/image\.csv; the folder has images\.csv\. Did you mean 'images\.csv'\? Set "
            r"source\.table\.table, or source\.table\.path\.",
        ),
    ],
)
def test_settings_that_do_not_fit_the_table(clothes: Place, changes: dict[str, Any], message: str):
    with pytest.raises(SourceError, match=message):
        list(config(clothes, **changes).open())


def test_a_table_of_nothing_but_a_header_is_refused(clothes: Place):
    clothes.put("images.csv", b"image,sender_id,label,kids\n")
    with pytest.raises(SourceError, match=r"images\.csv has no rows\. Write one row per picture into it"):
        config(clothes).open().total()


def test_all_faults_of_the_settings_are_told_at_once():
    templates = [{"text": "{label"}, {"text": "{label:x}"}]
    broken = TableConfig(path="x", table="t.csv", picture_column="p", templates=templates, caption_columns=["c"])
    with pytest.raises(ConfigError, match=r"'\{label': expected .*; '\{label:x\}': unknown 'x'.*; give either caption"):
        broken.open()
    with pytest.raises(ConfigError, match=r"source\.table cannot be used: give either caption_columns or templates\."):
        TableConfig(path="x", table="t.csv", picture_column="p").open()


def test_cells_that_cannot_be_read_put_their_row_aside_and_no_other(place: Place):
    lines = [
        {"file": "a.png", "text": "a coat", "part": "train"},
        {"file": "b.png", "text": 7},
        {"file": "c.png", "text": "a hat", "part": "holdout"},
        {"file": "https://x.org/d.jpg", "text": "a shoe"},
        {"file": float("nan"), "text": "x"},
        {"file": "e.png", "text": float("nan")},
    ]
    place.put("t.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    for seed, name in enumerate("abce"):
        place.put(f"{name}.png", png(seed))
    settings = {"table": "t.jsonl", "picture_column": "file", "caption_columns": ["text"], "split_column": "part"}
    found = list(TableConfig(path=place.root, **settings).open())
    assert [(row.source_row, row.reason) for row in found] == [
        ("t.jsonl:1 a.png", ""),
        ("t.jsonl:2 b.png", "malformed_caption"),
        ("t.jsonl:3 c.png", "unknown_split"),
        ("t.jsonl:4", "picture_is_a_url"),
        ("t.jsonl:5", "missing_picture"),
        ("t.jsonl:6 e.png", "no_caption"),
    ]
    assert found[1].detail == "'text' holds 7; expected a string or a list of strings"
    assert "img2dataset makes shards of such lists" in found[3].detail


def test_of_a_table_with_large_columns_only_those_named_are_read(tmp_path: Path):
    rows = 60
    columns = {"file": [f"{n}.png" for n in range(rows)], "text": ["a coat"] * rows, "blob": [bytes(1 << 20)] * rows}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=10, use_dictionary=False)
    (tmp_path / "0.png").write_bytes(png(0))
    source = TableConfig(path=str(tmp_path), table="t.parquet", picture_column="file", caption_columns=["text"]).open()
    assert peak_bytes(source.total) < 10_000_000
