"""The store: whole artifacts or none, equal recipes built once, damage noticed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.store import Draft, Store

RECIPE = Recipe("rows", "1", {"size_px": 96})


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """The same tests on local disk and on (an in-memory) S3."""
    if request.param == "local":
        yield Store(tmp_path / "store")
        return
    moto = pytest.importorskip("moto")
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        patch.setenv("VLM_CACHE", str(tmp_path / "cache"))
        import boto3

        boto3.client("s3").create_bucket(Bucket="vlm")
        yield Store("s3://vlm/prefix")


def write_hello(draft: Draft) -> None:
    (draft.path / "deep").mkdir()
    (draft.path / "deep" / "hello.txt").write_text("hello")
    draft.counts["rows"] = 3


def test_an_artifact_is_built_once_and_then_reused(store: Store) -> None:
    first = store.build(RECIPE, write_hello)
    second = store.build(RECIPE, lambda draft: pytest.fail("built twice"))
    assert (first.reused, second.reused) == (False, True)
    assert first.ref == second.ref
    assert (second.path / "deep" / "hello.txt").read_text() == "hello"
    assert second.ref.counts == {"rows": 3}


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


def test_a_writer_that_raises_leaves_nothing(store: Store) -> None:
    def fail(draft: Draft) -> None:
        write_hello(draft)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.build(RECIPE, fail)
    assert store.find(RECIPE) is None
    assert not store.build(RECIPE, write_hello).reused


def test_scratch_survives_a_failure_and_goes_when_the_artifact_is_built(store: Store) -> None:
    scratch = store.scratch(RECIPE)
    (scratch / "checkpoint").write_text("half")
    with pytest.raises(ValueError, match="stop"):
        store.build(RECIPE, lambda draft: (_ for _ in ()).throw(ValueError("stop")))
    assert (store.scratch(RECIPE) / "checkpoint").read_text() == "half"
    store.build(RECIPE, write_hello)
    assert not scratch.exists()


def test_a_truncated_file_is_noticed(store: Store) -> None:
    built = store.build(RECIPE, write_hello)
    (built.path / "deep" / "hello.txt").write_text("he")
    with pytest.raises(StoreError, match=r"has 2 bytes, the manifest says 5.*materialize rows again"):
        store.directory(built.ref)


def test_an_altered_file_of_the_same_size_is_noticed_by_verify(store: Store) -> None:
    built = store.build(RECIPE, write_hello)
    store.verify(built.ref)
    (built.path / "deep" / "hello.txt").write_text("jello")
    with pytest.raises(StoreError, match="was altered"):
        store.verify(built.ref)


def test_a_missing_artifact_says_what_to_do(store: Store) -> None:
    with pytest.raises(StoreError, match=r"There is no rows 0123 in .*Materialize rows again"):
        store.directory(ArtifactRef("rows", "0123", "gone", "x"))


def test_only_one_of_two_writers_takes_a_free_name(store: Store) -> None:
    assert store.backend.write_text("ledger/1.json", "a", only_if_absent=True)
    assert not store.backend.write_text("ledger/1.json", "b", only_if_absent=True)
    assert store.backend.read_text("ledger/1.json") == "a"
    assert store.backend.list_keys("ledger") == ["1.json"]
    assert store.backend.read_text("ledger/2.json") is None


def test_a_second_builder_of_the_same_recipe_adopts_the_first_ones_artifact(store: Store) -> None:
    def race(draft: Draft) -> None:
        store.build(RECIPE, write_hello)
        (draft.path / "mine.txt").write_text("mine")

    built = store.build(RECIPE, race)
    assert (built.path / "deep" / "hello.txt").is_file()
    assert not (built.path / "mine.txt").exists()


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
