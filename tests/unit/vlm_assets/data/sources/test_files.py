"""One interface over a local folder and S3: the same names, the same order, one clear error. Real S3: integration."""

import os
import threading
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from tests.unit.vlm_assets.data.sources.places import Place, s3_in_memory
from vlm_assets.data.sources.files import Files, fingerprint, in_threads, open_files, open_parent
from vlm_assets.data.sources.files_s3 import S3Files
from vlm_assets.errors import SourceError, UnreadableFileError


def opened(place: Place) -> Files:
    return open_files(place.root, "source.x.path")


def test_a_listing_is_sorted_and_leaves_out_what_is_hidden(place: Place):
    for name in ("b.txt", "a/2.txt", "a-1.txt", ".DS_Store", "__MACOSX/a.txt", "a/._2.txt", "a/.git/x", "ä.txt"):
        place.put(name, name.encode())
    infos = list(opened(place).list())
    assert [info.name for info in infos] == ["a-1.txt", "a/2.txt", "b.txt", "ä.txt"]
    assert [info.size_bytes for info in infos] == [7, 7, 5, 6]
    assert [info.name for info in opened(place).list("a/")] == ["a/2.txt"]
    assert list(opened(place).list("nothing")) == []


def test_files_are_read_whole_and_in_parts(place: Place):
    data = os.urandom(3_000_000)
    place.put("sub/a.bin", data)
    files = opened(place)
    assert files.read("sub/a.bin") == files.read("./sub//a.bin") == data
    with files.open("sub/a.bin") as file:
        assert file.seek(-10, os.SEEK_END) == len(data) - 10
        assert file.read() == data[-10:]
        assert file.read() == b""
        file.seek(5)
        assert file.read(7) == data[5:12]
        file.seek(1_000_000, os.SEEK_CUR)
        assert file.read(1_500_000) == data[1_000_012:2_500_012]


@pytest.mark.parametrize("name", ["../secret.txt", "a/../../secret.txt", "/etc/hostname", "..", "", "a\0b"])
def test_nothing_outside_of_the_root_is_read(place: Place, name: str):
    place.put("a.txt", b"a")
    Place(place.root.removesuffix("/set"), place.client).put("secret.txt", b"secret")
    files = opened(place)
    assert not files.exists(name)
    with pytest.raises(UnreadableFileError, match=r"leads out of .*set; files outside are never read"):
        files.read(name)


def test_a_file_that_is_not_there_is_named(place: Place):
    place.put("a.txt", b"a")
    files = opened(place)
    assert (files.exists("a.txt"), files.exists("b.txt"), files.exists("a.txt/b")) == (True, False, False)
    with pytest.raises(UnreadableFileError, match=r"There is no (file|object) .*set/b\.txt\. Check source\.x\.path\."):
        files.open("b.txt")


def test_a_fingerprint_follows_names_content_and_settings(place: Place):
    def now(*settings: str) -> str:
        return fingerprint(opened(place), opened(place).list(), *settings)

    place.put("a.txt", b"a")
    seen = [now(), now("caption")]
    assert now() == seen[0]
    place.put("a.txt", b"b")
    seen.append(now())
    place.put("b.txt", b"")
    seen.append(now())
    assert len(set(seen)) == 4


def test_an_empty_root_is_refused(place: Place):
    place.put(".DS_Store", b"")
    with pytest.raises(SourceError, match=r"set (is empty|holds no objects)\. .* change source\.x\.path\."):
        list(opened(place).list())


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path):
    with pytest.raises(SourceError, match=r"The folder /.*/none does not exist\. Set source\.x\.path to one\."):
        open_files(tmp_path / "none", "source.x.path").read("a")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"The folder /.*/file is not a folder\."):
        list(open_files(tmp_path / "file", "source.x.path").list())
    with pytest.raises(
        SourceError, match=r"source\.x\.path is 'gs://a/b'; it takes a local path or s3://bucket/prefix"
    ):
        open_files("gs://a/b", "source.x.path")
    with pytest.raises(SourceError, match=r"source\.x\.path is 's3://'; it takes s3://bucket/prefix\."):
        open_files("s3://", "source.x.path")


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("a")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "circle").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "dangling.txt").symlink_to(tmp_path / "none")
    assert [info.name for info in open_files(tmp_path / "set", "x").list()] == ["linked/a.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_row_to_put_aside(tmp_path: Path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.txt").chmod(0)
    files = open_files(tmp_path, "x")
    with pytest.raises(UnreadableFileError, match=r"Cannot read .*a\.txt: Permission denied\."):
        files.read("a.txt")
    assert fingerprint(files, files.list())


def test_the_path_of_a_file_is_its_folder_and_its_name(place: Place):
    place.put("a.csv", b"a")
    files, name = open_parent(f"{place.root}/a.csv", "source.x.path")
    assert files.read(name) == b"a"
    with pytest.raises(SourceError, match=r"source\.x\.path is '/'; it takes the path of a file"):
        open_parent("/", "source.x.path")


def test_a_bucket_that_is_not_there_is_named():
    with (
        s3_in_memory(),
        pytest.raises(SourceError, match=r"There is no bucket 'none' at https://.*correct source\.x\.path"),
    ):
        list(open_files("s3://none/set", "source.x.path").list())


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "key", "kind", "message"),
    [
        (client_error("NoSuchKey"), "set/a", UnreadableFileError, r"There is no object s3://pictures/set/a\. Check"),
        (
            client_error("AccessDenied"),
            "set/a",
            SourceError,
            r"denies these credentials to read s3://pictures/set/a",
        ),
        (client_error("AccessDenied"), "", SourceError, r"denies these credentials to list s3://pictures/set/"),
        (
            client_error("InvalidObjectState"),
            "set/a",
            SourceError,
            r"s3://pictures/set/a is archived \(InvalidObjectState\)\. Restore it from the archive, or take it out",
        ),
        (client_error("SlowDown"), "set/a", SourceError, r"Cannot read s3://pictures/set/a at .*SlowDown"),
        (
            client_error("SignatureDoesNotMatch"),
            "set/a",
            SourceError,
            r"not accept the credentials .* Check AWS_ACCESS",
        ),
        (NoCredentialsError(), "set/a", SourceError, r"There are no credentials for s3://pictures/set/a\. Set"),
        (
            EndpointConnectionError(endpoint_url="x"),
            "set/a",
            SourceError,
            r"Cannot reach S3 at .* AWS_ENDPOINT_URL and the network",
        ),
    ],
    ids=lambda value: value.response["Error"]["Code"] if isinstance(value, ClientError) else "",
)
def test_what_the_service_says_is_one_sentence(error: Exception, key: str, kind: type[Exception], message: str):
    with s3_in_memory() as place:
        found = S3Files(place.root, "source.x.path").error(error, key)
    assert type(found) is kind, "only what is not there is a row to put aside"
    with pytest.raises(kind, match=f"(?i){message}"):
        raise found


def test_threads_keep_the_order_and_read_only_so_far_ahead():
    running, most, taken = 0, 0, 0
    lock = threading.Lock()

    def items():
        nonlocal taken
        for number in range(50):
            taken += 1
            yield number

    def double(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return 2 * number

    results = in_threads(double, items(), readers=4, ahead=8)
    assert next(results) == 0
    assert taken <= 9, "a large set is not held in memory"
    assert list(results) == [2 * number for number in range(1, 50)]
    assert most <= 4


def test_an_error_in_a_thread_reaches_the_reader():
    with pytest.raises(UnreadableFileError, match="row 3"):
        list(in_threads(lambda number: (_ for _ in ()).throw(UnreadableFileError("row 3")), range(5)))


def test_a_fingerprint_tells_how_far_it_is(place: Place):
    for name in "abc":
        place.put(name, b"x")
    lines: list[str] = []
    files = opened(place)
    assert fingerprint(files, files.list(), log=lines.append) == fingerprint(files, files.list())
    assert [line.split(" files")[0] for line in lines] == ["fingerprint  100% 3/3"]
