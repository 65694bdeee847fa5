"""Pictures of corrections: kept as uploaded, bounded, the first of a name stays; without the setting none is kept."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes
from vlm_serving.kept_pictures import KeptPictures, read_picture_of, trim
from vlm_serving.request_log import RequestLog
from vlm_serving.service import CaptionService

MEBIBYTE = 1024**2


@pytest.fixture
def service(bundle: Path, tmp_path: Path) -> Iterator[CaptionService]:
    log = RequestLog(tmp_path / "log", flush_s=0.05)
    service = make_service(bundle, log, feedback_pictures_max_bytes=MEBIBYTE)
    yield service
    service.close()


def test_the_picture_of_a_corrected_caption_is_kept_as_it_was_uploaded(service: CaptionService, tmp_path: Path) -> None:
    client, picture = make_client(service), picture_bytes(1)
    files = [("files", ("a.png", picture)), ("files", ("b.png", picture_bytes(2)))]
    captions = client.post("/v1/captions", files=files).json()["captions"]
    assert service.pictures is not None
    service.pictures.close()  # what is queued is on the disk
    assert client.post("/v1/feedback", json={"id": captions[0]["id"], "caption": "a red square"}).status_code == 200
    kept = list((tmp_path / "log" / "pictures" / "kept").iterdir())
    assert [path.read_bytes() for path in kept] == [picture]
    trim(tmp_path / "log" / "pictures" / "recent", 0)
    assert read_picture_of(tmp_path / "log" / "pictures", captions[0]["id"]) == picture
    assert read_picture_of(tmp_path / "log" / "pictures", captions[1]["id"]) is None


def test_without_the_setting_no_picture_is_kept(bundle: Path, tmp_path: Path) -> None:
    service = make_service(bundle, RequestLog(tmp_path / "log", flush_s=0.05))
    client = make_client(service)
    caption = client.post("/v1/captions", files={"files": ("a.png", picture_bytes(1))}).json()["captions"][0]
    assert client.post("/v1/feedback", json={"id": caption["id"], "caption": "a red square"}).status_code == 200
    service.close()
    assert not (tmp_path / "log" / "pictures").exists()


def test_who_repeats_a_request_id_replaces_nothing(tmp_path: Path) -> None:
    pictures = KeptPictures(tmp_path, MEBIBYTE)
    pictures.append("a", b"first")
    pictures.append("a", b"second")
    pictures.close()
    assert read_picture_of(tmp_path, "a") == b"first"


def test_the_oldest_pictures_go(tmp_path: Path) -> None:
    pictures = KeptPictures(tmp_path, 1000)
    for number in range(20):
        pictures.append(f"r/{number}", bytes(100))
    pictures.close()
    left = list((tmp_path / "recent").iterdir())
    assert sum(path.stat().st_size for path in left) <= 1050
    assert read_picture_of(tmp_path, "r/0") is None
    assert read_picture_of(tmp_path, "r/19") is not None


def test_a_full_folder_of_kept_pictures_takes_no_more(tmp_path: Path) -> None:
    pictures = KeptPictures(tmp_path, 1000)
    for name in ("a", "b"):
        pictures.append(name, bytes(600))
    pictures.close()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "other").write_bytes(bytes(1001))
    assert not pictures.keep("b")
    os.unlink(tmp_path / "kept" / "other")
    assert pictures.keep("b") and pictures.keep("b")
    assert not pictures.keep("unknown")
