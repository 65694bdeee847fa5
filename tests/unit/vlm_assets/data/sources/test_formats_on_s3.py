"""Every format gives the same rows from S3 as from a local folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.vlm_assets.data.sources.formats import (
    Pair,
    jpeg,
    pairs,
    write_coco,
    write_flickr30k_csv,
    write_flickr30k_token,
    write_inshop,
    write_karpathy,
    write_multimodal,
    write_webdataset,
)
from tests.unit.vlm_assets.data.sources.places import BUCKET, Place, s3_in_memory
from vlm_assets.data.sources.coco import CocoConfig
from vlm_assets.data.sources.deepfashion import DeepFashionConfig
from vlm_assets.data.sources.flickr30k import Flickr30kConfig
from vlm_assets.data.sources.webdataset import WebDatasetConfig
from vlm_assets.errors import SourceError

Writer = Callable[[Path, Sequence[Pair]], Path]
FORMATS: dict[str, tuple[Writer, Any]] = {
    "coco": (write_coco, CocoConfig),
    "karpathy": (write_karpathy, CocoConfig),
    "flickr30k-token": (write_flickr30k_token, Flickr30kConfig),
    "flickr30k-csv": (write_flickr30k_csv, Flickr30kConfig),
    "multimodal": (write_multimodal, DeepFashionConfig),
    "inshop": (write_inshop, DeepFashionConfig),
    "webdataset": (write_webdataset, WebDatasetConfig),
}


@pytest.fixture
def bucket() -> Iterator[Place]:
    with s3_in_memory() as place:
        yield place


@pytest.mark.parametrize("name", FORMATS)
def test_rows_from_s3_are_those_of_the_folder(tmp_path: Path, bucket: Place, name: str):
    write, config = FORMATS[name]
    bucket.put_folder(write(tmp_path, pairs(6)))
    local, remote = config(path=str(tmp_path)).open(), config(path=bucket.root).open()
    rows = list(remote)
    assert len(rows) == remote.total() == 6
    assert all(row.picture and row.captions and row.file_name for row in rows)
    assert rows == list(local)
    assert remote.fingerprint() == config(path=bucket.root).open().fingerprint()
    assert remote.fingerprint() != local.fingerprint(), "S3's is made of ETags: nothing is downloaded for it"


def test_annotations_here_and_pictures_on_s3(tmp_path: Path, bucket: Place):
    write_karpathy(tmp_path, pairs(3))
    for file in tmp_path.rglob("*.jpg"):
        bucket.put(f"flat/{file.name}", file.read_bytes())
        file.unlink()
    source = CocoConfig(path=str(tmp_path), pictures=f"{bucket.root}/flat").open()
    assert [row.picture for row in source] == [jpeg(0), jpeg(1), jpeg(2)]


def test_a_picture_that_vanishes_from_s3_is_put_aside(tmp_path: Path, bucket: Place):
    bucket.put_folder(write_multimodal(tmp_path, pairs(2)))
    source = DeepFashionConfig(path=bucket.root).open()
    before = list(source)
    bucket.client.delete_object(Bucket=BUCKET, Key=f"set/images/{before[1].file_name.rpartition('/')[2]}")
    after = list(source)
    assert after[0] == before[0]
    assert (after[1].reason, after[1].picture) == ("unreadable_picture", None)
    assert "There is no object s3://pictures/set/images/WOMEN" in after[1].detail
    assert replace(after[1], reason="", detail="").source_row == before[1].source_row


@pytest.mark.parametrize("config", [CocoConfig, Flickr30kConfig, DeepFashionConfig, WebDatasetConfig])
def test_a_prefix_without_objects_is_one_clear_error(bucket: Place, config: Any):
    bucket.put("elsewhere/a.txt", b"x")
    with pytest.raises(
        SourceError, match=r"s3://pictures/set/here holds no objects. Upload the files there, or change s"
    ):
        list(config(path=f"{bucket.root}/here").open())
