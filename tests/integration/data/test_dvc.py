"""The data registry with the real commands: git, DVC, and an S3 server as DVC's remote."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.data.registry import commit_by_hand, dvc, files_of, git, make_registry
from tests.seaweed import BUCKET, SECRETS
from vlm_assets.contracts import Recipe
from vlm_assets.data.registry import open_registry
from vlm_assets.data.versioning import RegistryConfig, build_versioned, restore
from vlm_assets.errors import ConfigError, RegistryError, StoreError
from vlm_assets.store import Built, Draft, Store

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]


def rows(store: Store, content: str, name: str = "rows") -> tuple[Built, dict[str, str]]:
    """An artifact of two files, built and tracked."""

    def write(draft: Draft) -> None:
        (draft.path / "deep").mkdir()
        (draft.path / "deep" / "a.bin").write_bytes(content.encode() * 100_000)
        (draft.path / "b.bin").write_bytes(content.encode())
        draft.counts["rows"] = 3

    built, metadata = build_versioned(store, Recipe(name, "1", {"content": content}), write, print)
    return built, dict(metadata)


def test_pushed_wiped_and_pulled_it_is_the_same(root: Path, home: Path) -> None:
    built, metadata = rows(Store(home / "store"), "one")
    assert metadata["dvc_hash"].endswith(".dir") and metadata["dvc_hash"] in (root / "rows.dvc").read_text()
    assert metadata["dvc_revision"] == git(root, "rev-parse", "HEAD").strip()
    assert metadata["dvc_remote"].startswith(f"s3://{BUCKET}/dvc-")
    assert git(root, "log", "-1", "--format=%s (%cn)").strip() == f"rows {built.ref.version}: 3 rows (vlm-captioning)"
    assert git(root, "status", "--porcelain") == ""
    note = json.loads(Store(home / "store").backend.read_text(f"registry/rows/{built.ref.version}.json") or "")
    assert (note["revision"], note["hash"]) == (metadata["dvc_revision"], metadata["dvc_hash"])
    assert note["manifest_sha256"] == built.ref.sha256
    expected = files_of(built.path)
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "rows")
    dvc(root, "pull", "--quiet")
    assert files_of(root / "rows") == expected
    Store(home / "store").verify(built.ref)


def test_a_clone_of_the_registry_pulls_the_same(root: Path, home: Path) -> None:
    built, _ = rows(Store(home / "store"), "one")
    git(home, "clone", "--quiet", str(root), "clone")
    dvc(home / "clone", "pull", "--quiet")
    assert files_of(home / "clone" / "rows") == files_of(built.path)


def test_a_fresh_clone_that_nothing_was_pulled_into_tracks_as_the_registry_does(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, tracked = rows(Store(home / "store"), "one")
    git(home, "clone", "--quiet", str(root), "clone")
    clone = home / "clone"
    assert not (clone / ".dvc" / "tmp").exists(), "the interesting case"
    monkeypatch.setenv("VLM_DVC_REGISTRY", str(clone))
    again, metadata = rows(Store(home / "elsewhere"), "one")
    assert (again.ref.sha256, metadata) == (first.ref.sha256, tracked), "the same version is not committed again"
    _, other = rows(Store(home / "elsewhere"), "two")
    assert other["dvc_revision"] == git(clone, "rev-parse", "HEAD").strip() != tracked["dvc_revision"]


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3" "$4"'
TRACKING = """
import sys
from pathlib import Path
from tests.integration.data.test_dvc import rows
from vlm_assets.errors import RegistryError
from vlm_assets.store import Store
try:
    rows(Store(Path(sys.argv[1])), "one")
except RegistryError as error:
    print("RegistryError:", error)
"""


def test_a_registry_that_cannot_be_written_is_one_clear_line(root: Path, home: Path) -> None:
    """Mounted read-only, in a mount namespace of its own."""
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "mount -t tmpfs none /mnt"]).returncode != 0:
        pytest.skip("this machine lets nobody mount")
    command = [*unshare, READ_ONLY, "sh", str(root), sys.executable, TRACKING, str(home / "store")]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert output.splitlines()[-1] == (
        f"RegistryError: Cannot write to the registry {root}: Read-only file system. Nothing is lost: the artifact is "
        "in the store. Give write permission, or set VLM_DVC_REGISTRY to a clone of it, and materialize again."
    )
    (version,) = (home / "store" / "rows").iterdir()
    assert (version / "manifest.json").is_file()


def test_the_same_version_is_not_committed_again(root: Path, home: Path) -> None:
    _, first = rows(Store(home / "store"), "one")
    (again, second), commits = rows(Store(home / "store"), "one"), git(root, "rev-list", "--count", "HEAD")
    assert again.reused and first == second and commits.strip() == "2"
    _, other = rows(Store(home / "store"), "two")
    assert other["dvc_hash"] != first["dvc_hash"] and other["dvc_revision"] != first["dvc_revision"]


def test_an_old_revision_checked_out_goes_back_into_an_empty_store(root: Path, home: Path) -> None:
    first, tracked = rows(Store(home / "store"), "one")
    rows(Store(home / "store"), "two")
    for path in (home / "store", root / ".dvc" / "cache", root / "rows"):
        shutil.rmtree(path)
    git(root, "checkout", "--quiet", tracked["dvc_revision"])
    dvc(root, "pull", "--quiet")
    fail = lambda draft: pytest.fail("built again")  # noqa: E731
    again, metadata = build_versioned(Store(home / "store"), Recipe("rows", "1", {"content": "one"}), fail, print)
    assert (again.ref.version, again.ref.sha256) == (first.ref.version, first.ref.sha256)
    assert metadata == tracked
    Store(home / "store").verify(again.ref)


def test_another_version_on_an_old_revision_is_refused_before_anything_is_touched(root: Path, home: Path) -> None:
    _, tracked = rows(Store(home / "store"), "one")
    rows(Store(home / "store"), "two")
    git(root, "checkout", "--quiet", tracked["dvc_revision"])
    dvc(root, "checkout", "--quiet")
    before = files_of(root / "rows")
    with pytest.raises(RegistryError, match=r"is on no branch .*git -C .* switch main"):
        rows(Store(home / "store"), "three")
    assert files_of(root / "rows") == before and git(root, "status", "--porcelain") == ""
    git(root, "switch", "--quiet", "main")
    built, metadata = rows(Store(home / "store"), "three")
    assert built.reused and metadata["dvc_revision"] == git(root, "rev-parse", "main").strip()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong-secret-5Lm1"},
            r"dvc push failed: s3://vlm/.* refuses the credentials: .*403",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            r"dvc push failed: s3://vlm/.* cannot be reached: .*Check AWS_END",
        ),
    ],
    ids=["wrong secret", "unreachable"],
)
def test_a_push_that_fails_is_one_clear_line_and_loses_nothing(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    before = git(root, "rev-parse", "HEAD")
    with pytest.MonkeyPatch.context() as wrong:
        for name, value in variables.items():
            wrong.setenv(name, value)
        with pytest.raises(RegistryError, match=message) as failed:
            rows(Store(home / "store"), "one")
    text = str(failed.value)
    assert "the artifact is in the store" in text and "\n" not in text
    assert not any(secret in text for secret in (*SECRETS.values(), "wrong-secret-5Lm1"))
    assert git(root, "rev-parse", "HEAD") == before, "no commit names what was not pushed"
    store = Store(home / "store")
    built, metadata = rows(store, "one")
    assert built.reused, "the artifact was in the store"
    store.verify(built.ref)
    assert metadata["dvc_revision"] == git(root, "rev-parse", "HEAD").strip() != before.strip()
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "rows")
    dvc(root, "pull", "--quiet")
    assert files_of(root / "rows") == files_of(built.path)


def test_a_remote_without_its_bucket_is_one_clear_line(root: Path, home: Path) -> None:
    dvc(root, "remote", "modify", "--quiet", "storage", "url", "s3://nowhere/dvc")
    with pytest.raises(RegistryError, match=r"dvc push failed: s3://nowhere/dvc does not exist: .*Create the bucket"):
        rows(Store(home / "store"), "one")


def test_without_a_remote_it_is_tracked_and_says_that_it_was_not_pushed(root: Path, home: Path) -> None:
    dvc(root, "remote", "remove", "--quiet", "storage")
    commit_by_hand(root, "No remote")
    _, metadata = rows(Store(home / "store"), "one")
    assert metadata["dvc_remote"].startswith("none: not pushed")
    assert metadata["dvc_revision"] == git(root, "rev-parse", "HEAD").strip()


def test_a_remote_on_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_registry(home / "registry", str(home / "remote"))
    monkeypatch.setenv("VLM_DVC_REGISTRY", str(home / "registry"))
    built, metadata = rows(Store(home / "store"), "one")
    assert metadata["dvc_remote"] == str(home / "remote")
    for path in (home / "registry" / ".dvc" / "cache", home / "registry" / "rows"):
        shutil.rmtree(path)
    dvc(home / "registry", "pull", "--quiet")
    assert files_of(home / "registry" / "rows") == files_of(built.path)


def test_linked_into_a_registry_the_data_is_on_disk_once(root: Path, home: Path) -> None:
    dvc(root, "config", "--quiet", "cache.type", "hardlink")
    commit_by_hand(root, "Links")
    built, _ = rows(Store(home / "store"), "one")
    assert (root / "rows" / "deep" / "a.bin").stat().st_ino == (built.path / "deep" / "a.bin").stat().st_ino
    assert not os.stat(built.path / "deep" / "a.bin").st_mode & 0o222, "nobody alters both by one edit"


def test_what_others_have_in_the_registry_stays(root: Path, home: Path) -> None:
    (root / "notes.txt").write_text("not yet committed")
    git(root, "add", "notes.txt")
    rows(Store(home / "store"), "one")
    assert git(root, "status", "--porcelain").strip() == "A  notes.txt"
    (root / "other").mkdir()
    (root / "other" / "precious.txt").write_text("mine")
    with pytest.raises(RegistryError, match=r"registry/other holds something that is no other\. Move it away"):
        rows(Store(home / "store"), "one", name="other")
    assert (root / "other" / "precious.txt").read_text() == "mine"


def test_a_checkout_that_was_altered_is_not_taken_for_the_artifact(root: Path, home: Path) -> None:
    rows(Store(home / "store"), "one")
    (root / "rows" / "b.bin").write_bytes(b"eno")
    shutil.rmtree(home / "store")
    with pytest.raises(StoreError, match=r"rows/b.bin was altered: restore .*registry/rows"):
        rows(Store(home / "store"), "one")


def test_faults_of_the_settings_are_told_before_any_work(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(path: Path) -> str:
        monkeypatch.setenv("VLM_DVC_REGISTRY", str(path))
        with pytest.raises(ConfigError) as found:
            build_versioned(Store(home / "store"), Recipe("rows", "1"), lambda draft: pytest.fail("worked"), print)
        return str(found.value)

    assert "nowhere', which is no directory" in fault(home / "nowhere")
    (home / "plain").mkdir()
    assert "is not the root of a git repository with DVC. Make it one: cd " in fault(home / "plain")
    git(home / "plain", "init", "--quiet")
    assert "git init && dvc init" in fault(home / "plain"), "git alone is not enough"
    monkeypatch.setenv("VLM_DVC", "no-such-dvc")
    both = fault(home / "plain")
    assert "The command DVC was not found (tried no-such-dvc). Install it with `make dvc`" in both
    assert "is not the root of a git repository with DVC" in both, "all faults at once"


def test_off_by_default(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_DVC", "no-such-dvc")
    assert open_registry() is None
    assert rows(Store(home / "store"), "one")[1] == {}


def test_an_old_revision_that_cannot_be_fetched_is_one_clear_line(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, _ = rows(Store(home / "store"), "one")
    shutil.rmtree(root / ".dvc" / "cache")
    config, elsewhere = RegistryConfig(revision="main"), Store(home / "elsewhere")
    with pytest.MonkeyPatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-5Lm1")
        with pytest.raises(RegistryError, match=r"^dvc get failed: .*Nothing was changed") as failed:
            restore(elsewhere, config, "rows", "1", print)
    assert "wrong-secret-5Lm1" not in str(failed.value) and "\n" not in str(failed.value)
    assert "refuses the credentials" in str(failed.value)
    again, _ = restore(elsewhere, config, "rows", "1", print)
    assert again.ref.sha256 == built.ref.sha256
    with pytest.raises(StoreError, match=r"made by code version 1, and this code reads version 2\. Use the release"):
        restore(elsewhere, config, "rows", "2", print)
