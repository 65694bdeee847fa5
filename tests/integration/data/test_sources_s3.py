"""Sources on a real S3 server: the same set gives the same rows as on disk, and every refusal is one sentence."""

from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.http_server import serving
from tests.seaweed import BUCKET, HOST, Seaweed, set_environment
from tests.unit.vlm_assets.data.pictures import png, write_folder
from vlm_assets.data.sources.files import open_files
from vlm_assets.data.sources.files_s3 import S3Files
from vlm_assets.data.sources.image_folder import ImageFolderSource
from vlm_assets.errors import SourceError, UnreadableFileError

pytestmark = pytest.mark.integration
ROOT = f"s3://{BUCKET}/folder"


@pytest.fixture
def folder(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture folder on disk, and the same on S3."""
    lines: list[dict[str, Any]] = [{"file_name": f"p/{n}.png", "text": f"picture {n}"} for n in range(30)]
    write_folder(tmp_path / "in", lines)
    for file in (file for file in (tmp_path / "in").rglob("*") if file.is_file()):
        name = file.relative_to(tmp_path / "in").as_posix()
        seaweed.client().put_object(Bucket=BUCKET, Key=f"folder/{name}", Body=file.read_bytes())
    set_environment(monkeypatch, seaweed.environment("reader"))
    return tmp_path / "in"


def test_a_folder_gives_the_same_rows_from_s3_as_from_disk(folder: Path):
    assert list(ImageFolderSource(ROOT)) == list(ImageFolderSource(folder))


def test_the_fingerprint_comes_from_etags_and_follows_the_pictures(folder: Path, seaweed: Seaweed):
    before = ImageFolderSource(ROOT).fingerprint()
    assert ImageFolderSource(ROOT).fingerprint() == before
    seaweed.client().put_object(Bucket=BUCKET, Key="folder/p/0.png", Body=png(100))
    assert ImageFolderSource(ROOT).fingerprint() != before


@pytest.mark.usefixtures("folder")
def test_an_s3_fingerprint_downloads_no_picture():
    source, fetched = ImageFolderSource(ROOT), list[str]()
    assert isinstance(source.files, S3Files)
    source.files.client.meta.events.register(
        "before-call.s3.GetObject", lambda params, **_: fetched.append(params["url_path"])
    )
    source.fingerprint()
    assert {name.rpartition("/")[2] for name in fetched} == {"metadata.jsonl"}, "which names the pictures"
    next(iter(source))
    assert any(name.endswith(".png") for name in fetched), "the rows do"


def test_a_stream_can_be_read_from_anywhere(folder: Path):
    data = (folder / "p" / "3.png").read_bytes()
    with open_files(ROOT, "x").open("p/3.png") as file:
        file.seek(-100, 2)
        assert file.read() == data[-100:]
        file.seek(0)
        assert file.read() == data


@pytest.mark.usefixtures("folder")
def test_refusals_are_one_sentence_without_the_secret(seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch):
    def refused(root: str = ROOT) -> str:
        with pytest.raises(SourceError) as caught:
            open_files(root, "source.image_folder.path").read("metadata.jsonl")
        with pytest.raises(SourceError):
            ImageFolderSource(root).fingerprint()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert refused("s3://nobucket/x").startswith(f"There is no bucket 'nobucket' at {seaweed.endpoint}. Create it,")
    set_environment(monkeypatch, seaweed.environment("reader", secret="not-the-secret"))
    assert "does not accept the credentials to read s3://vlm/folder/metadata.jsonl (SignatureDoesNotMatch)" in refused()
    assert "not-the-secret" not in refused()
    set_environment(monkeypatch, {**seaweed.environment("reader"), "AWS_ENDPOINT_URL": f"http://{HOST}:9"})
    assert (
        "Cannot reach S3 at http://127.0.0.1:9 to read s3://vlm/folder/metadata.jsonl. Check AWS_ENDPOINT" in refused()
    )


def breaking_server(data: bytes, breaks: int) -> AbstractContextManager[str]:
    """An S3 server whose connection breaks in the middle of an object, `breaks` times."""
    left = [breaks]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            rest = data[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if left[0]:
                left[0] -= 1
                self.wfile.write(rest[: len(rest) // 2])
                self.close_connection = True
            else:
                self.wfile.write(rest)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return serving(Handler)


def test_a_broken_connection_is_taken_up_where_it_broke(monkeypatch: pytest.MonkeyPatch):
    data = bytes(range(256)) * 20_000
    with breaking_server(data, breaks=2) as endpoint:
        set_environment(monkeypatch, Seaweed(endpoint).environment("reader"))
        assert open_files(ROOT, "x").read("a.bin") == data


def test_a_connection_that_keeps_breaking_is_an_error(monkeypatch: pytest.MonkeyPatch):
    with breaking_server(bytes(100_000), breaks=100) as endpoint:
        set_environment(monkeypatch, Seaweed(endpoint).environment("reader"))
        with pytest.raises(SourceError, match=r"Cannot read s3://vlm/folder/a\.bin at http://127.*") as caught:
            open_files(ROOT, "x").read("a.bin")
    assert not isinstance(caught.value, UnreadableFileError), "the import stops; a rerun goes on"
