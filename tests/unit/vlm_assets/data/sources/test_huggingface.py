"""Data sets as `datasets` writes them, read from disk and from S3 without a network. The hub: tests/integration."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.vlm_assets.data.pictures import png, write_folder
from tests.unit.vlm_assets.data.sources.places import Place, s3_in_memory
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.sources.huggingface import HuggingFaceConfig
from vlm_assets.data.sources.shard_files import split_of_file
from vlm_assets.errors import ConfigError, SourceError


def data_set(count: int, first: int = 0) -> Any:
    """Pictures with two captions each, two pictures per product."""
    from datasets import Dataset, Image

    numbers = range(first, first + count)
    columns = {
        "image": [{"bytes": png(number), "path": f"{number}.png"} for number in numbers],
        "caption": [[f"picture {number}", "a picture"] for number in numbers],
        "product": [number // 2 for number in numbers],
    }
    return Dataset.from_dict(columns).cast_column("image", Image())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """What `DatasetDict.save_to_disk` writes."""
    from datasets import DatasetDict

    splits = {"train": data_set(20), "validation": data_set(2, 20), "test": data_set(3, 22)}
    DatasetDict(splits).save_to_disk(tmp_path / "saved", num_shards={"train": 2, "validation": 1, "test": 1})
    return tmp_path / "saved"


def rows(path: str | Path, **changes: Any) -> list[SourceRow]:
    source = HuggingFaceConfig(path=str(path), **changes).open()
    found = list(source)
    assert source.total() == len(found)
    return found


def parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_save_to_disk_is_read_where_it_lies(saved: Path, place: Place):
    place.put_folder(saved)
    found = rows(place.root, group_column="product")
    assert [row.split for row in found] == ["test"] * 3 + ["train"] * 20 + ["val"] * 2
    first = found[3]
    assert (first.source_row, first.file_name) == ("train/data-00000-of-00002.arrow:1", "0.png")
    assert (first.picture, first.captions, first.group) == (png(0), ("picture 0", "a picture"), "0")
    assert [row.picture for row in found[3:23]] == [png(number) for number in range(20)]


def test_hub_style_parquet_is_read_where_it_lies(tmp_path: Path, place: Place):
    for split, part in {"train": data_set(5), "test": data_set(2, 5)}.items():
        part.to_parquet(tmp_path / f"{split}.parquet")
        place.put(f"data/{split}-00000-of-00001.parquet", (tmp_path / f"{split}.parquet").read_bytes())
    place.put("README.md", b"---\nlicense: cc0-1.0\n---\n")
    found = rows(place.root)
    assert [(row.split, row.picture) for row in found] == [
        *(("test", png(5 + number)) for number in range(2)),
        *(("train", png(number)) for number in range(5)),
    ]
    assert [row.split for row in rows(place.root, splits={"train": ""})] == [""] * 5
    single = rows(f"{place.root}/data/test-00000-of-00001.parquet")
    assert [(row.source_row, row.split) for row in single] == [
        ("test-00000-of-00001.parquet:1", ""),  # one split alone prescribes nothing: all of it would be the test
        ("test-00000-of-00001.parquet:2", ""),
    ]


def test_pictures_as_bytes_as_paths_and_not_at_all(place: Place):
    pictures = pa.array(
        [{"bytes": png(0), "path": None}, {"bytes": None, "path": "p/1.png"}, None, {"path": "../2.png"}]
    )
    place.put("a.parquet", parquet({"image": pictures, "text": ["x", "y", "z", "w"]}))
    place.put("p/1.png", png(1))
    found = rows(place.root)
    assert [(row.reason, row.picture, row.file_name) for row in found] == [
        ("", png(0), ""),
        ("", png(1), "1.png"),
        ("missing_picture", None, ""),
        ("unreadable_picture", None, "2.png"),
    ]
    assert "leads out of" in found[3].detail
    place.put("b.parquet", parquet({"image": ["p/1.png"], "text": ["by its path alone"]}))
    assert rows(f"{place.root}/b.parquet")[0].picture == png(1)
    place.put("c.parquet", parquet({"image": [png(3)], "text": ["plain bytes"]}))
    assert rows(f"{place.root}/c.parquet")[0].picture == png(3)


def test_captions_in_structs_in_several_columns_and_missing(place: Place):
    sentences = [[{"raw": "a", "id": 1}, {"raw": "b", "id": 2}], [{"raw": "a", "id": 3}], []]
    table = {"image": [png(0)] * 3, "sentences": sentences, "title": ["t", "a", None], "meta": [{"shop": 7}] * 3}
    place.put("a.parquet", parquet(table))
    found = rows(place.root, caption_columns=["title", "sentences.raw"], group_column="meta.shop")
    assert [(row.captions, row.group, row.reason) for row in found] == [
        (("t", "a", "b"), "7", ""),
        (("a",), "7", ""),
        ((), "", "no_caption"),
    ]
    assert found[2].detail == "title, sentences.raw: empty"


def test_a_column_may_say_the_split(place: Place):
    split = ["train", "val", "test", "restval"]  # Karpathy's, in a set that the hub keeps in one split called "test"
    table = {"image": [png(n) for n in range(4)], "caption": [["x"]] * 4, "split": split}
    place.put("data/test-00000-of-00001.parquet", parquet(table))
    assert [row.split for row in rows(place.root, split_column="split")] == ["train", "val", "test", "train"]


def test_an_unknown_split_puts_its_row_aside_and_no_other(place: Place):
    table = {"image": [png(0), png(1)], "text": ["x", "y"], "split": ["holdout", "dev"]}
    place.put("a.parquet", parquet(table))
    found = rows(place.root, split_column="split")
    assert [(row.reason, row.split) for row in found] == [("unknown_split", ""), ("", "val")]


def labelled(column: str, values: Any, feature: dict[str, Any]) -> bytes:
    """A table whose column is declared to hold class labels, as `to_parquet` declares it."""
    table = pa.table({"image": [png(number) for number in range(len(values))], column: values})
    said = {"info": {"features": {"image": {"_type": "Image"}, column: feature}}}
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(said)}), buffer)
    return buffer.getvalue()


CLOTHES = {"names": ["T-shirt/top", "Trouser"], "_type": "ClassLabel"}


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        ([1, 0, -1, None], CLOTHES, [("Trouser",), ("T-shirt/top",), (), ()]),
        (
            [[1, 0], [0], [], None],
            {"feature": CLOTHES, "_type": "List"},
            [("Trouser", "T-shirt/top"), ("T-shirt/top",), (), ()],
        ),
        ([[1], [0], [], None], [CLOTHES], [("Trouser",), ("T-shirt/top",), (), ()]),
    ],
)
def test_class_labels_are_said_by_their_names(place: Place, values: Any, feature: Any, expected: list[tuple[str, ...]]):
    place.put("a.parquet", labelled("label", values, feature))
    found = rows(place.root, caption_columns=["label"])
    assert [row.captions for row in found] == expected
    assert [row.reason for row in found] == ["", "", "no_caption", "no_caption"]


def test_class_labels_as_datasets_writes_them(tmp_path: Path):
    from datasets import ClassLabel, Dataset, Features, Image, Value

    features = Features({"image": Image(), "text": Value("string"), "part": ClassLabel(names=["training", "testing"])})
    columns = {"image": [{"bytes": png(n), "path": None} for n in range(2)], "text": ["x", "y"], "part": [1, 0]}
    data = Dataset.from_dict(columns, features=features)
    data.to_parquet(tmp_path / "parquet" / "a.parquet")
    data.save_to_disk(tmp_path / "arrow")
    for kind in ("parquet", "arrow"):
        assert [row.split for row in rows(tmp_path / kind, split_column="part")] == ["test", "train"]


def test_a_column_of_lists_of_pictures_is_one_clear_error(place: Place):
    pictures = pa.array([[{"bytes": png(0), "path": None}, {"bytes": png(1), "path": None}]])
    place.put("a.parquet", parquet({"images": pictures, "text": ["x"]}))
    with pytest.raises(
        SourceError,
        match=r"set: the column 'images' is of type list<.*bytes: binary.*>; expected one picture a row \(an image, "
        r"its bytes or its path\)\. Set picture_column to another column, or write the data set anew\.$",
    ) as caught:
        rows(place.root, picture_column="images")
    assert len(str(caught.value)) < 400


def test_pictures_that_are_web_addresses_are_put_aside(place: Place):
    place.put("a.parquet", parquet({"image": ["https://x.org/a.jpg", "1.png"], "text": ["x", "y"]}))
    place.put("1.png", png(1))
    found = rows(place.root)
    assert [row.reason for row in found] == ["picture_is_a_url", ""]
    assert found[0].detail.startswith("https://x.org/a.jpg is a web address, and nothing is fetched from the web; img2")


def test_counting_says_how_far_it_is(saved: Path):
    lines: list[str] = []
    assert HuggingFaceConfig(path=str(saved)).open().total(lines.append) == 25
    assert lines[-1].startswith("count  100% 4/4 files")


def test_the_fingerprint_is_that_of_the_files(place: Place):
    def now() -> str:
        return HuggingFaceConfig(path=place.root).open().fingerprint()

    place.put("a.parquet", parquet({"image": ["1.png"], "text": ["x"]}))
    place.put("1.png", png(1))
    seen = [now()]
    assert now() == seen[0]
    place.put("1.png", png(2))
    seen.append(now())
    place.put("a.parquet", parquet({"image": ["1.png"], "text": ["y"]}))
    assert len({*seen, now()}) == 3


def test_a_folder_of_another_format_is_loaded_by_datasets(tmp_path: Path):
    write_folder(tmp_path / "set", [{"file_name": "a.png", "text": "x"}, {"file_name": "b.png", "text": "y"}])
    found = rows(tmp_path / "set")
    assert [(row.picture, row.captions, row.file_name) for row in found] == [
        (png(0), ("x",), "a.png"),
        (png(1), ("y",), "b.png"),
    ]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("train/data-00000-of-00002.arrow", "train"),
        ("validation.parquet", "validation"),
        ("default/dev/0000.parquet", "dev"),
        ("my-set_test_v2.parquet", "test"),
        ("coco-train-00000-of-00001.arrow", "train"),
        ("data/unsupervised-00000-of-00001.parquet", "unsupervised"),
        ("data-00000-of-00001.arrow", ""),
        ("latest.parquet", ""),
    ],
)
def test_splits_are_told_by_file_names(name: str, split: str):
    assert split_of_file(name) == split


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"picture_column": "img"},
            r"has no column 'img'; it has caption, image, product\. Did you mean 'image'\? Set pi",
        ),
        ({"group_column": "products"}, r"no column 'products'; .* Did you mean 'product'\? Set group_column"),
        ({"caption_columns": ["text"]}, r"no column 'text'; .* Set caption_columns"),
        ({"caption_columns": ["product"]}, r"'product' is of type int64; expected text, a list of texts, or c"),
        ({"splits": {"dev": "val"}}, r"has no split 'dev'; it has 'test', 'train'\. Set source\.huggingface\.splits"),
    ],
)
def test_settings_that_do_not_fit_the_data_set(tmp_path: Path, changes: dict[str, Any], message: str):
    data_set(4).to_parquet(tmp_path / "train.parquet")
    data_set(1, 22).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(SourceError, match=message):
        list(HuggingFaceConfig(path=str(tmp_path), **changes).open())


def test_splits_with_names_of_their_own_want_a_word(tmp_path: Path):
    for name in ("train", "holdout"):
        data_set(1).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    with pytest.raises(
        SourceError, match=r"not clear who trains on them: 'holdout' of 'holdout', 'train'\. Set source"
    ):
        rows(tmp_path)
    assert {row.split for row in rows(tmp_path, splits={"train": "train", "holdout": "test"})} == {"train", "test"}
    with pytest.raises(ConfigError, match=r"splits maps to 'dev'; use train, val, test or ''"):
        rows(tmp_path, splits={"train": "dev"})


def test_damaged_and_missing_files_are_named(tmp_path: Path):
    data_set(3).to_parquet(tmp_path / "whole.parquet")
    damaged = tmp_path / "set" / "train.parquet"
    damaged.parent.mkdir()
    damaged.write_bytes((tmp_path / "whole.parquet").read_bytes()[:-50])
    with pytest.raises(SourceError, match=r"set/train\.parquet is not readable: Parquet magic bytes not found"):
        rows(tmp_path / "set")
    damaged.rename(damaged.with_suffix(".arrow"))
    with pytest.raises(SourceError, match=r"set/train\.arrow is not readable: "):
        rows(tmp_path / "set")
    with pytest.raises(SourceError, match=r"There is no file .*none\.parquet\. Check source\.huggingface\.path"):
        rows(tmp_path / "none.parquet")
    with pytest.raises(SourceError, match=r"The folder .*nowhere does not exist"):
        rows(tmp_path / "nowhere")


def test_files_that_disagree_on_their_columns_are_refused(tmp_path: Path):
    data_set(1).to_parquet(tmp_path / "a.parquet")
    data_set(1).remove_columns("caption").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        SourceError, match=r"b\.parquet has no column 'caption', which the first file has; it has image"
    ):
        rows(tmp_path)


def test_s3_without_parquet_says_what_it_can_read():
    with s3_in_memory() as place:
        place.put("a.json", b"{}")
        with pytest.raises(SourceError, match=r"s3://pictures/set has no \.parquet and no \.arrow file\. Upload them"):
            rows(place.root)


def test_code_that_a_data_set_brings_along_is_never_run(tmp_path: Path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (folder / "data.json").write_text('{"image": "a.png", "text": "x"}\n')
    with pytest.raises(SourceError, match=r"Cannot load the folder '.*set': Dataset scripts are no longer supported"):
        rows(folder)
    assert not (tmp_path / "ran").exists()
