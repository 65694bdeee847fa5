"""COCO captions and Karpathy's split files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vlm_assets.data.sources.formats import captions_of, jpeg, pairs, write, write_coco, write_karpathy
from vlm_assets.data.sources.base import SourceRow
from vlm_assets.data.sources.coco import CocoConfig
from vlm_assets.errors import SourceError


def rows_of(root: Path, **settings: Any) -> list[SourceRow]:
    return list(CocoConfig(path=str(root), **settings).open())


def reasons(rows: list[SourceRow]) -> dict[str, str]:
    return {row.source_row: row.reason for row in rows if row.reason}


@pytest.mark.parametrize("year", [2014, 2017])
def test_captions_of_train_and_val_are_read_together(tmp_path: Path, year: int):
    rows = rows_of(write_coco(tmp_path, pairs(6), year))
    assert [row.captions for row in rows] == [tuple(captions_of(pairs(6)[index][1])) for index in (0, 1, 3, 4, 2, 5)]
    assert [row.picture for row in rows] == [jpeg(index) for index in (0, 1, 3, 4, 2, 5)]
    assert {row.split for row in rows} == {""}, "captions_train and captions_val prescribe nothing"
    assert rows[4].source_row == f"captions_val{year}.json image 41"
    assert rows[4].file_name.endswith("000000000041.jpg")


def test_one_of_several_annotation_files(tmp_path: Path):
    write_coco(tmp_path, pairs(6))
    assert len(rows_of(tmp_path, annotations=["captions_val2014.json"])) == 2
    assert len(rows_of(tmp_path, annotations=["annotations/captions_val2014.json", "captions_train2014.json"])) == 6
    with pytest.raises(SourceError, match=r"has no file 'captions_va2014.json'; it has .*Did you mean '.*captions_val"):
        rows_of(tmp_path, annotations=["captions_va2014.json"])


def test_pictures_may_lie_elsewhere_flat_or_under_their_names_of_2017(tmp_path: Path):
    write_coco(tmp_path / "set", pairs(3))
    for number, file in enumerate(sorted((tmp_path / "set").rglob("*.jpg"))):
        bare = file.name.rpartition("_")[2]
        write(tmp_path / "flat" / (bare if number else file.name), file.read_bytes())
    rows = rows_of(tmp_path / "set" / "annotations", pictures=str(tmp_path / "flat"))
    assert [row.picture for row in rows] == [jpeg(0), jpeg(1), jpeg(2)]


def test_the_folder_that_the_annotations_are_called_after_is_preferred(tmp_path: Path):
    write_coco(tmp_path, pairs(2), 2017)
    write(tmp_path / "thumbnails" / "000000000009.jpg", jpeg(7))
    assert rows_of(tmp_path)[0].picture == jpeg(0)


def test_karpathys_splits_are_honoured_or_not(tmp_path: Path):
    write_karpathy(tmp_path, pairs(10))
    rows = rows_of(tmp_path)
    assert [row.split for row in rows] == [
        "train", "train", "train", "train", "train", "val", "train", "test", "train", "test",
    ]  # fmt: skip
    assert [row.picture for row in rows] == [jpeg(seed) for seed in range(10)]
    assert rows[2].captions == tuple(captions_of(pairs(10)[2][1]))
    assert rows[2].file_name == "COCO_val2014_000000000002.jpg"
    assert {row.split for row in rows_of(tmp_path, given_splits=False)} == {""}


def test_an_unknown_split_puts_its_picture_aside_and_no_other(tmp_path: Path):
    file = write_karpathy(tmp_path, pairs(3)) / "dataset_coco.json"
    document = json.loads(file.read_text())
    document["images"][1]["split"] = "holdout"
    file.write_text(json.dumps(document))
    assert [row.reason for row in rows_of(tmp_path)] == ["", "unknown_split", ""]
    assert rows_of(tmp_path)[1].detail.startswith("unknown split 'holdout'; use one of train, ")


def test_the_split_file_of_flickr30k_has_no_folders(tmp_path: Path):
    rows = rows_of(write_karpathy(tmp_path, pairs(3), "flickr30k"))
    assert [row.picture for row in rows] == [jpeg(0), jpeg(1), jpeg(2)]
    assert rows[0].source_row == "dataset_flickr30k.json image 1000092795.jpg"


def test_a_split_file_goes_before_captions_and_must_be_the_only_one(tmp_path: Path):
    write_coco(tmp_path, pairs(6))
    write_karpathy(tmp_path, pairs(2))
    assert len(rows_of(tmp_path)) == 2
    write_karpathy(tmp_path, pairs(2), "flickr30k")
    with pytest.raises(
        SourceError,
        match=r"several split files: dataset_coco.json, dataset_flickr30k.json. Name one in source.coco.ann",
    ):
        rows_of(tmp_path)


def coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"images": images, "annotations": annotations}


def test_what_cannot_be_used_comes_with_a_reason(tmp_path: Path):
    for name in ("good.jpg", "silent.jpg", "one.jpg", "two.jpg"):
        write(tmp_path / "pictures" / name, jpeg(1))
    write(tmp_path / "a" / "twice.jpg", jpeg(1))
    write(tmp_path / "b" / "twice.jpg", jpeg(2))
    write(tmp_path / "a" / "copied.jpg", jpeg(3))
    write(tmp_path / "b" / "copied.jpg", jpeg(3))
    write(tmp_path.parent / "outside.jpg", jpeg(4))
    names = ["good.jpg", "silent.jpg", "gone.jpg", "../outside.jpg", "twice.jpg", "copied.jpg"]
    images: list[dict[str, Any]] = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    images += [{"id": 77, "file_name": "one.jpg"}, {"id": 77, "file_name": "two.jpg"}, {"file_name": "x.jpg"}]
    images += [images[0]]
    annotations = [
        {"id": 10 * number, "image_id": number, "caption": f"c{number}"} for number in range(6) if number != 1
    ]
    annotations += [{"id": 1, "image_id": 1, "caption": " \n"}, {"id": 2, "image_id": 4711, "caption": "of nothing"}]
    annotations += [{"id": 3, "image_id": 0, "caption": None}, {"id": 4, "image_id": 77, "caption": "which?"}]
    write(tmp_path / "captions_mine.json", coco(images, annotations))
    rows = rows_of(tmp_path)
    assert {row.file_name: row.captions for row in rows if not row.reason} == {
        "good.jpg": ("c0",),
        "copied.jpg": ("c5",),
    }
    assert [(row.source_row.partition(" ")[2], row.reason, row.detail) for row in rows if row.reason] == [
        ("image 1", "no_caption", "the annotations hold no caption of this picture"),
        ("image 2", "missing_picture", f"no picture gone.jpg in {tmp_path}"),
        ("image 3", "missing_picture", f"no picture ../outside.jpg in {tmp_path}"),
        ("image 4", "ambiguous_picture", f"different pictures of this name in {tmp_path}: a/twice.jpg and b/twice.jpg"),
        ("image 77", "duplicate_id", "the id 77 stands for one.jpg, two.jpg"),
        ("image 77", "duplicate_id", "the id 77 stands for one.jpg, two.jpg"),
        ("image number 9", "malformed_image", "id is None, file_name is 'x.jpg'"),
        ("annotation 2", "unknown_image_id", "no image has the id 4711"),
        ("annotation 3", "malformed_annotation", "caption is None, no text"),
    ]
    assert CocoConfig(path=str(tmp_path)).open().total() == len(rows)


def test_a_picture_too_large_is_not_read(tmp_path: Path):
    write_coco(tmp_path, pairs(2))
    big = tmp_path / "train2014" / "COCO_train2014_000000000009.jpg"
    with big.open("r+b") as file:
        file.truncate(30_000_000)  # a sparse file
    assert (rows := rows_of(tmp_path))[0].reason == "picture_too_large"
    assert rows[0].detail == "30,000,000 bytes, the limit is 20,971,520"


def test_fingerprint_follows_captions_splits_and_pictures_alone(tmp_path: Path):
    write_karpathy(tmp_path, pairs(3))

    def fingerprint(**settings: Any) -> str:
        return CocoConfig(path=str(tmp_path), **settings).open().fingerprint()

    before = fingerprint()
    write(tmp_path / "readme.txt", "notes")
    write(tmp_path / "val2014" / "stranger.jpg", jpeg(9))
    assert fingerprint() == before, "no row has changed"
    unsplit = fingerprint(given_splits=False)
    write(tmp_path / "train2014" / "COCO_train2014_000000000000.jpg", jpeg(8))
    painted = fingerprint()
    document = json.loads((tmp_path / "dataset_coco.json").read_text())
    document["images"][1]["sentences"][0]["raw"] = "Another caption."
    write(tmp_path / "dataset_coco.json", document)
    assert len({before, unsplit, painted, fingerprint()}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "captions_x.json is empty (0 bytes). Fetch the file again."),
        (
            b'{"images": [\n  {"id": 1,}]}',
            "captions_x.json:2: not JSON (Expecting property name enclosed in double quotes",
        ),
        (b'{"images": [\n  {"id": 1,}]}', "at column 12). Expected captions_*.json of COCO, or a Karpathy split"),
        (b'{"images": [', "captions_x.json:1: not JSON (Expecting value at column 13)"),
        (
            b'{"images":\n [{"file_name": "\xff"}]}',
            "captions_x.json:2: not UTF-8 (invalid start byte at byte 18 of the",
        ),
        (b"[" * 100_000, "captions_x.json: not JSON (maximum recursion depth exceeded"),
        (b"image,caption\na.jpg,a red coat\n", "captions_x.json:1: not JSON (Expecting value at column 1). Expected"),
        (b"[]", "is neither a captions file of COCO (keys images and annotations) nor a Karpathy split"),
        (b'{"info": {}, "data": []}', "it has the keys data, info. Expected captions_*.json of COCO"),
        (
            b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": [], "id": 7}]}',
            "annotations have no 'caption'; they have bbox, id, image_id. instances_*.json hold boxes; use captions_",
        ),
        (
            b'{"images": [{"id": 1, "filename": "a.jpg"}], "annotations": []}',
            "images have no 'file_name'; they have filename, id. Did you mean 'filename'? It must name the picture's",
        ),
        (
            b'{"images": [{"file_name": "a.jpg", "sentences": []}]}',
            "images have no 'filename'; they have file_name, sentences. Did you mean 'file_name'?",
        ),
        (
            b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}',
            "None of the 1 pictures that the annotations name is in ",
        ),
        (
            b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}',
            "the first is 'a.jpg'. Set source.coco.pictures to the folder of the pictures.",
        ),
    ],
)
def test_faulty_files_are_one_clear_error(tmp_path: Path, content: bytes, message: str):
    write(tmp_path / "captions_x.json", content)
    with pytest.raises(SourceError, match=re.escape(message)):
        rows_of(tmp_path)


def test_a_folder_without_annotations_tells_what_it_has(tmp_path: Path):
    with pytest.raises(SourceError, match=rf"{tmp_path}/gone does not exist. Set source.coco.path"):
        rows_of(tmp_path / "gone")
    write_coco(tmp_path / "set", pairs(1))
    with pytest.raises(SourceError, match=rf"{tmp_path}/nowhere does not exist. Set source.coco.pictures"):
        rows_of(tmp_path / "set", pictures=str(tmp_path / "nowhere"))
    with pytest.raises(
        SourceError, match=r"source.coco.path is 'gs://x/y'; it takes a local path or s3://bucket/prefix"
    ):
        CocoConfig(path="gs://x/y").open()
    (tmp_path / "set" / "annotations" / "captions_train2014.json").rename(tmp_path / "set" / "instances_val2014.json")
    with pytest.raises(
        SourceError,
        match=r"has no dataset_\*.json and no captions_\*.json; it has instances_val2014.json. Put one there, or name "
        r"it in source.coco.annotations",
    ):
        rows_of(tmp_path / "set")


def test_an_empty_captions_file_is_an_empty_source(tmp_path: Path):
    write(tmp_path / "captions_x.json", coco([], []))
    assert CocoConfig(path=str(tmp_path)).open().total() == 0


def test_title_and_licence_travel_along(tmp_path: Path):
    attribution = CocoConfig(path="/data/coco/", licence="CC BY 4.0").open().attribution
    assert (attribution.title, attribution.licence) == ("coco", "CC BY 4.0")
    assert CocoConfig(path="/data/coco", title="COCO 2014").open().attribution.title == "COCO 2014"
