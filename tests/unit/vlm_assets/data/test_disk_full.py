"""A disk that fills up while a snapshot is imported: one sentence, nothing half-written, and the rerun goes on."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.vlm_assets.data.test_import_resume import CHILD, ROOT, contents, imported, mixed_rows
from vlm_assets.disk import room_needed
from vlm_assets.errors import StoreError

CATCHING = f"""
{CHILD.rsplit("store.build", 1)[0]}
from vlm_assets.errors import StoreError
try:
    store.build(recipe, write)
except StoreError as error:
    print("StoreError:", error)
    print("left:", *sorted(path.name for path in Path(sys.argv[1]).rglob("*") if path.is_file()))
"""
SMALL_DISK = 'mount -t tmpfs -o size=200k none "$1" && exec "$2" -c "$3" "$1/store"'


def test_a_full_disk(tmp_path: Path):
    """A real file system of 200 kB, in a mount namespace of its own."""
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "mount -t tmpfs none /mnt"]).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    command = [*unshare, SMALL_DISK, "sh", str(tmp_path), sys.executable, CATCHING]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    message = next(line for line in output.splitlines() if line.startswith("StoreError"))
    assert message.startswith(f"StoreError: No room to write below {tmp_path}/store")
    assert "No space left on device; " in message and " bytes are free there. Nothing half-written was kept." in message
    assert message.endswith("Free some space, or set VLM_STORE to a larger disk, and materialize again.")
    left = output.splitlines()[-1].split()[1:]
    assert set(left) >= {"pictures-00000.parquet", "journal-00000.jsonl"}, "what is finished stays for the rerun"
    assert not [name for name in left if name.startswith(".pictures") or name in ("rows.parquet", "manifest.json")]


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
