"""The store: whole artifacts or none, equal recipes built once, damage noticed. On an S3 server: tests/integration."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store_suite import RECIPE, StoreSuite, write_hello
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.manifest import MANIFEST
from vlm_assets.store import Draft, Store


class TestOnDisk(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return Store(tmp_path / "store")


class TestOnS3InMemory(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        import boto3
        import moto

        with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "test")
            patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            patch.delenv("AWS_ENDPOINT_URL", raising=False)
            patch.setenv("VLM_CACHE", str(tmp_path / "cache"))
            boto3.client("s3").create_bucket(Bucket="vlm")
            yield Store("s3://vlm/prefix")


def test_another_config_code_parent_or_input_is_another_version() -> None:
    parent = ArtifactRef("raw", "aa", "/x", "bb")
    recipes = [
        RECIPE,
        Recipe("rows", "2", {"size_px": 96}),
        Recipe("rows", "1", {"size_px": 97}),
        Recipe("rows", "1", {"size_px": 96}, parents=(parent,)),
        Recipe("rows", "1", {"size_px": 96}, inputs={"file": "cc"}),
    ]
    assert len({recipe.version for recipe in recipes}) == len(recipes)


def test_a_killed_writer_leaves_no_artifact_and_its_leavings_are_swept(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from vlm_assets.contracts import Recipe\n"
        "from vlm_assets.store import Store\n"
        "def write(draft):\n"
        "    (draft.path / 'half').write_text('x'); os.kill(os.getpid(), 9)\n"
        "Store(sys.argv[1]).build(Recipe('rows', '1', {'size_px': 96}), write)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    staging = tmp_path / ".vlm" / "staging"
    assert len(list(staging.iterdir())) == 1
    store = Store(tmp_path)
    assert store.find(RECIPE) is None
    store.build(RECIPE, write_hello)
    assert list(staging.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_write_permission_is_one_clear_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match=r"Cannot write to the store at .*set VLM_STORE"):
        Store(tmp_path / "store").build(RECIPE, write_hello)


def test_a_file_where_the_store_should_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match=r"Cannot write to the store at .*set VLM_STORE"):
        Store(tmp_path / "store").build(RECIPE, write_hello)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"VLM_STORE is 'ftp://x'; it takes a local path or s3://bucket/prefix"):
        Store("ftp://x")


def test_a_bucket_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"VLM_STORE is 's3:///prefix'; it takes a local path or s3://bucket/prefix"):
        Store("s3:///prefix")


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path) -> None:
    def write(draft: Draft) -> None:
        write_hello(draft)
        Path("/dev/full").write_bytes(b"the kernel's own answer to a disk without room")

    store = Store(tmp_path)
    with pytest.raises(StoreError, match=r"No space left on device; [\d,]+ bytes are free.*set VLM_STORE"):
        store.build(RECIPE, write)
    assert store.find(RECIPE) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not store.build(RECIPE, write_hello).reused


def test_what_was_built_and_could_not_be_published_is_published_by_the_next_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "rows").write_text("a file where the artifacts' folder should be")
    with pytest.raises(StoreError, match=r"Cannot publish .*What was built is kept in .*the next run publishes it"):
        store.build(RECIPE, write_hello)
    (tmp_path / "rows").unlink()
    built = store.build(RECIPE, lambda draft: pytest.fail("built twice"))
    store.verify(built.ref)
    assert list((tmp_path / ".vlm" / "unpublished").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "0" * 16}, "name, version and recipe disagree"),
        ({"files": {"../outside.txt": {"sha256": "", "bytes": 0}}}, "name, version and recipe disagree"),
        ({"files": {"/etc/passwd": {"sha256": "", "bytes": 0}}}, "name, version and recipe disagree"),
        ({"schema": 99}, "name, version and recipe disagree"),
        ({"recipe": None}, "is not the manifest of an artifact"),
        ({"files": ["a"], "recipe": {}}, "name, version and recipe disagree|is not the manifest"),
    ],
)
def test_a_forged_manifest_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    elsewhere = Store(tmp_path / "elsewhere").build(RECIPE, write_hello).path
    manifest = json.loads((elsewhere / MANIFEST).read_text())
    (elsewhere / MANIFEST).write_text(json.dumps({**manifest, **change}))
    with pytest.raises(StoreError, match=message):
        Store(tmp_path / "store").adopt(elsewhere, "rows")


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no rows: it has no manifest.json"):
        Store(tmp_path / "store").adopt(tmp_path, "rows")


@pytest.mark.parametrize("text", ["much", "0", "-1", "inf", "nan"])
def test_a_limit_that_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE_GB", text)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(ConfigError, match=rf"VLM_CACHE_GB is '{text}'; it takes gigabytes, such as 50"):
        Store("s3://vlm/prefix")
