"""A disk that fills up while a snapshot is imported: one sentence, nothing half-written, and the rerun goes on."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import png
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from tests.unit.vlm_assets.data.test_import_resume import CHILD, ROOT, contents, imported, mixed_rows
from vlm_assets.contracts import Recipe
from vlm_assets.data import shard_workers
from vlm_assets.data.config import SplitConfig
from vlm_assets.data.shards import ShardSettings, write_shards
from vlm_assets.data.sources.base import SourceRow, silent
from vlm_assets.data.splits import write_splits
from vlm_assets.disk import room_needed
from vlm_assets.errors import StoreError
from vlm_assets.store import Draft, Store

CATCHING = f"""
{CHILD.rsplit("store.build", 1)[0]}
from vlm_assets.errors import StoreError
try:
    store.build(recipe, write)
except StoreError as error:
    print("StoreError:", error)
    print("left:", *sorted(path.name for path in Path(sys.argv[1]).rglob("*") if path.is_file()))
"""
SMALL_DISK = 'mount -t tmpfs -o size="$4" none "$1" && exec "$2" -c "$3" "$1/store" "$5"'


def on_a_small_disk(mount: Path, size: str, script: str, inputs: Path | str = "") -> list[str]:
    """What the script prints that gets a store on a real file system of that size, in a mount namespace of its own."""
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "mount -t tmpfs none /mnt"]).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    mount.mkdir(exist_ok=True)
    command = [*unshare, SMALL_DISK, "sh", str(mount), sys.executable, script, size, str(inputs)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def test_a_full_disk(tmp_path: Path):
    output = on_a_small_disk(tmp_path, "200k", CATCHING)
    message = next(line for line in output if line.startswith("StoreError"))
    assert message.startswith(f"StoreError: No room to write below {tmp_path}/store")
    assert "No space left on device; " in message and " bytes are free there. Nothing half-written was kept." in message
    assert message.endswith("Free some space, or set VLM_STORE to a larger disk, and materialize again.")
    left = output[-1].split()[1:]
    assert set(left) >= {"pictures-00000.parquet", "journal-00000.jsonl"}, "what is finished stays for the rerun"
    assert not [name for name in left if name.startswith(".pictures") or name in ("rows.parquet", "manifest.json")]


def fill_the_disk() -> None:
    """Splits, shards by two processes and a reference, each until the disk is full; prints what is said and left."""
    root, inputs = Path(sys.argv[1]), Path(sys.argv[2])
    store, splits, shards = Store(root), Recipe("splits", "1"), Recipe("shards", "1")
    shard_workers.FEW_PICTURES = 0

    def write_both(draft: Draft) -> None:
        settings, scratch = ShardSettings(shard_bytes=12_000, workers=2), store.scratch(shards)
        write_shards(inputs / "splits", inputs / "raw", inputs / "bundle", draft.path, silent, settings, scratch)

    def attempt(name: str, work: Callable[[], object]) -> None:
        try:
            work()
        except StoreError as error:
            print(f"{name}: {error}")

    store.backend.write_text("refs/rows/last.json", "the one before")
    limits = SplitConfig(holdouts=[]).settings()
    attempt(
        "splits", lambda: store.build(splits, lambda draft: write_splits(inputs / "in", draft.path, limits, silent))
    )
    attempt("shards", lambda: store.build(shards, write_both))
    with suppress(OSError):
        (root / "fill").write_bytes(bytes(10_000_000))
    attempt("refs", lambda: store.backend.write_text("refs/rows/last.json", "x" * 100_000))
    print("last:", store.backend.read_text("refs/rows/last.json"))
    print("left:", *sorted(path.name for path in root.rglob("*") if path.is_file()))


def test_a_disk_that_fills_up_in_any_stage_is_one_clear_line_and_leaves_nothing_half_written(tmp_path: Path):
    write_inputs(tmp_path, [png(seed) for seed in range(60)], [("a dress", "a red square")] * 60)
    tiny_bundle(tmp_path / "bundle")
    imported(tmp_path / "in", [SourceRow(f"row {n}", png(n), captions=(f"picture {n}",)) for n in range(400)])
    script = f"from {__name__} import fill_the_disk; fill_the_disk()"
    said = dict(line.split(": ", 1) for line in on_a_small_disk(tmp_path / "disk", "64k", script, tmp_path))
    for stage in ("splits", "shards", "refs"):
        assert said[stage].startswith(f"No room to write below {tmp_path}/disk/store/"), said[stage]
        assert "bytes are free there. Nothing half-written was kept. Free some space, or set VLM_STORE" in said[stage]
    assert said["last"] == "the one before"
    left = said["left"].split()
    assert [name for name in left if name.endswith(".parquet")], "shards that were finished stay for the rerun"
    assert set(left) - {name for name in left if name.endswith(".parquet")} == {".held", "fill", "last.json"}


def test_after_room_was_made_the_import_goes_on(tmp_path: Path):
    """`ulimit -f` stops the one large file; without it the next run ends as if nothing had been."""
    store = tmp_path / "store"

    def run(limit: Callable[[], None] | None = None) -> str:
        command = [sys.executable, "-c", CATCHING.replace("pack_bytes=PACK_BYTES", "pack_bytes=1_000_000"), str(store)]
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=limit).stdout

    first = run(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)))
    assert "StoreError: No room to write below" in first and "File too large" in first
    assert not (store / "raw_dataset").exists()
    assert "StoreError" not in run()
    (version,) = (store / "raw_dataset").iterdir()
    imported(tmp_path / "plain", mixed_rows())
    rows = "rows.parquet"
    assert contents(version)[rows] == contents(tmp_path / "plain")[rows]


def test_other_faults_of_the_disk_pass(tmp_path: Path):
    with pytest.raises(PermissionError), room_needed(tmp_path):
        raise PermissionError(13, "no")
    quota = r"No room to write below /nowhere/at/all: Disk quota exceeded; [\d,]+ bytes"
    with pytest.raises(StoreError, match=quota), room_needed(Path("/nowhere/at/all")):
        raise OSError(122, "quota")
