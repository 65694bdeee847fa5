"""The store on a real S3 server: the suite of every store, and what only a server can refuse or lose."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.seaweed import BUCKET, SECRETS, Seaweed, set_environment
from tests.store_suite import RECIPE, StoreSuite, write_hello
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.store import Draft, Store

pytestmark = pytest.mark.integration
PART_BYTES = 8 << 20  # above this boto3 uploads in parts


@pytest.fixture
def prefix(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix of the bucket; the environment lets the writer in."""
    set_environment(monkeypatch, {**seaweed.environment(), "VLM_CACHE": str(tmp_path / "cache")})
    return f"test-{uuid.uuid4().hex[:8]}"


class TestOnServer(StoreSuite):
    @pytest.fixture
    def store(self, prefix: str) -> Store:
        return Store(f"s3://{BUCKET}/{prefix}")


def test_the_address_leads_to_the_files(seaweed: Seaweed, prefix: str) -> None:
    built = Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, write_hello)
    key = built.ref.uri.removeprefix(f"s3://{BUCKET}/") + "/deep/hello.txt"
    assert seaweed.client().get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"hello"


def test_another_machine_sees_the_artifact(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, write_hello)
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache of another machine"))
    second = Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, lambda draft: pytest.fail("built twice"))
    assert (second.reused, second.ref) == (True, first.ref)
    assert second.path != first.path and (second.path / "deep" / "hello.txt").read_text() == "hello"


def test_a_pass_over_the_files_needs_no_room_for_all_of_them(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(draft: Draft) -> None:
        for number in range(6):
            (draft.path / f"{number}.bin").write_bytes(bytes([number]) * 100_000)

    ref = Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, write).ref
    cache = tmp_path / "cache of another machine"
    monkeypatch.setenv("VLM_CACHE", str(cache))
    monkeypatch.setenv("VLM_CACHE_GB", "0.00025")  # two files and a half
    store, most = Store(f"s3://{BUCKET}/{prefix}"), 0
    for number in range(6):
        with store.file(ref, f"{number}.bin") as local:
            assert local.read_bytes() == bytes([number]) * 100_000
            most = max(most, sum(path.stat().st_size for path in cache.rglob("*.bin")))
    assert most == 200_000


def test_an_object_that_was_altered_is_never_taken_for_the_artifact(
    seaweed: Seaweed, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, write_hello)
    key = built.ref.uri.removeprefix(f"s3://{BUCKET}/") + "/deep/hello.txt"
    seaweed.client().put_object(Bucket=BUCKET, Key=key, Body=b"jello")
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "another cache"))
    store = Store(f"s3://{BUCKET}/{prefix}")
    with pytest.raises(StoreError, match=rf"{key} does not have the bytes .*was altered\. Remove s3://.*materialize"):
        store.directory(built.ref)
    assert [*(tmp_path / "another cache").rglob("hello.txt")] == []


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong-secret-5Lm1"},
            r"^S3 at {endpoint} does not accept the credentials to read s3://vlm/{prefix}/rows/.* "
            r"\(SignatureDoesNotMatch\)\. Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN\.$",
        ),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, r"^S3 at {endpoint} does not accept the credentials .*InvalidAccessKeyId"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            r"^Cannot reach S3 at http://127.0.0.1:1 to read s3://vlm/.*Check AWS_ENDPOINT_URL and the network\.$",
        ),
    ],
    ids=["wrong secret", "unknown key", "unreachable"],
)
def test_no_way_in_is_one_clear_line_before_any_work(
    seaweed: Seaweed, prefix: str, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pattern = message.replace("{endpoint}", seaweed.endpoint).replace("{prefix}", prefix)
    with pytest.raises(StoreError, match=pattern) as refused:
        Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, lambda draft: pytest.fail("worked in vain"))
    assert not any(secret in str(refused.value) for secret in (*SECRETS.values(), "wrong-secret-5Lm1"))


def test_a_missing_bucket_is_one_clear_line(prefix: str) -> None:
    with pytest.raises(StoreError, match=r"^There is no bucket 'nowhere' at http.*Create it, or correct VLM_STORE"):
        Store("s3://nowhere/x").build(RECIPE, lambda draft: pytest.fail("worked in vain"))


def test_without_credentials_the_line_names_the_variables(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.aws
    with pytest.raises(StoreError, match=r"There are no credentials for s3://vlm/.*Set AWS_ACCESS_KEY_ID and AWS_SEC"):
        Store(f"s3://{BUCKET}/{prefix}").find(RECIPE)


def test_an_endpoint_that_is_no_address_is_a_fault_of_the_settings(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(ConfigError, match=r"Invalid endpoint: nonsense\. Check AWS_ENDPOINT_URL"):
        Store(f"s3://{BUCKET}/{prefix}")


def test_what_may_not_be_written_is_kept_and_published_when_it_may(
    seaweed: Seaweed, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, seaweed.environment("reader"))
    with pytest.raises(StoreError, match=r"denies these credentials to write s3://.*What was built is kept in ") as no:
        Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, write_hello)
    assert SECRETS["reader"] not in str(no.value)
    assert seaweed.keys(prefix) == []
    set_environment(monkeypatch, seaweed.environment("writer"))
    store = Store(f"s3://{BUCKET}/{prefix}")
    built = store.build(RECIPE, lambda draft: pytest.fail("built twice"))
    store.verify(built.ref)


KILLED = """
import sys
from pathlib import Path
from vlm_assets.contracts import Recipe
from vlm_assets.store import Store

def write(draft):
    for number in range(6):
        (draft.path / f"{number}.bin").write_bytes(bytes([number]) * (24 << 20))

Store(sys.argv[1]).build(Recipe("rows", "1", {"size_px": 96}), write)
"""


def test_a_killed_upload_shows_nothing_and_the_next_run_goes_on_and_cleans_up(seaweed: Seaweed, prefix: str) -> None:
    uri = f"s3://{BUCKET}/{prefix}"
    child = subprocess.Popen([sys.executable, "-c", KILLED, uri], env=dict(os.environ))
    wait_until(lambda: len(seaweed.keys(prefix)) >= 2 and unfinished(seaweed, prefix), child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert unfinished(seaweed, prefix), "killed amid an upload in parts"
    store = Store(uri)
    assert store.find(RECIPE) is None
    before = {key: modified(seaweed, key) for key in seaweed.keys(prefix)}
    built = store.build(RECIPE, lambda draft: pytest.fail("built twice"))
    store.verify(built.ref)
    assert unfinished(seaweed, prefix) == []
    assert {key: modified(seaweed, key) for key in before} == before, "what had been uploaded was not sent again"


def test_objects_of_a_writer_that_was_beaten_are_removed(seaweed: Seaweed, prefix: str) -> None:
    store = Store(f"s3://{BUCKET}/{prefix}")
    stray = f"{prefix}/rows/{RECIPE.version}/0123456789abcdef/half.bin"
    seaweed.client().put_object(Bucket=BUCKET, Key=stray, Body=b"x")
    seaweed.client().put_object(Bucket=BUCKET, Key=f"{prefix}/rows/another/kept.bin", Body=b"x")
    store.build(RECIPE, write_hello)
    assert stray not in seaweed.keys(prefix)
    assert f"{prefix}/rows/another/kept.bin" in seaweed.keys(prefix)


def test_a_big_file_goes_in_parts_and_comes_back_the_same(seaweed: Seaweed, prefix: str, tmp_path: Path) -> None:
    content = os.urandom(3 * PART_BYTES + 5)

    def write(draft: Draft) -> None:
        (draft.path / "big.bin").write_bytes(content)

    built = Store(f"s3://{BUCKET}/{prefix}").build(RECIPE, write)
    key = built.ref.uri.removeprefix(f"s3://{BUCKET}/") + "/big.bin"
    assert seaweed.client().head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"').endswith("-4"), "four parts"
    assert (built.path / "big.bin").read_bytes() == content


def test_two_processes_build_the_same_recipe_and_one_wins(prefix: str, tmp_path: Path) -> None:
    """Each with a cache of its own, as on two machines, and other bytes of the same names."""
    script = KILLED.replace("bytes([number])", "bytes([int(sys.argv[2])])").replace("24 << 20", "1 << 20")
    uri = f"s3://{BUCKET}/{prefix}"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, uri, str(number)],
            env={**os.environ, "VLM_CACHE": str(tmp_path / f"machine {number}")},
        )
        for number in range(2)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    store = Store(uri)
    ref = store.find(RECIPE)
    assert ref is not None
    store.verify(ref)
    path = store.directory(ref)
    assert len({(path / f"{number}.bin").read_bytes()[:1] for number in range(6)}) == 1, "all files are one writer's"


def unfinished(seaweed: Seaweed, prefix: str) -> list[str]:
    uploads = seaweed.client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
    return [upload["Key"] for upload in uploads]


def modified(seaweed: Seaweed, key: str) -> object:
    return seaweed.client().head_object(Bucket=BUCKET, Key=key)["LastModified"]


def wait_until(condition, child: "subprocess.Popen[bytes]", timeout_seconds: float = 60) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert child.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
        time.sleep(0.005)
