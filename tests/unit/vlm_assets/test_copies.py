"""Copies of what is remote: whole or not there, bounded, never taken away from who uses them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm_assets.copies import Copies
from vlm_assets.errors import StoreError

SIZE = 1000


def content(path: Path) -> None:
    (path / "file").write_bytes(bytes(SIZE))


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if not path.name.startswith(".")}


def test_the_least_recently_used_gives_way(tmp_path: Path):
    copies = Copies(tmp_path, 2 * SIZE, "VLM_CACHE")
    for name in ("a", "b"):
        with copies.use(name, content):
            pass
        time.sleep(0.02)  # the disk's clock ticks in milliseconds
    with copies.use("a", lambda path: pytest.fail("fetched twice")):
        pass
    with copies.use("c", content):
        pass
    assert names(tmp_path) == {"a", "c"}, "b was used longest ago"


def test_what_is_used_stays_whatever_the_limit(tmp_path: Path):
    copies = Copies(tmp_path, SIZE, "VLM_CACHE")
    copies.keep("kept", content)
    with copies.use("first", content) as first:
        with copies.use("second", content):
            assert first.is_dir() and names(tmp_path) == {"kept", "first", "second"}
        with copies.use("third", content):
            assert names(tmp_path) == {"kept", "first", "third"}
    with copies.use("fourth", content):
        assert names(tmp_path) == {"kept", "fourth"}


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path):
    def fail(path: Path) -> None:
        content(path)
        raise ValueError("lost the connection")

    copies = Copies(tmp_path, SIZE, "VLM_CACHE")
    with pytest.raises(ValueError, match="lost the connection"):
        copies.keep("a", fail)
    assert names(tmp_path) == set() and list(tmp_path.glob(".pid*")) == []
    assert copies.keep("a", content).is_dir()


def test_what_a_killed_process_used_or_fetched_goes(tmp_path: Path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from vlm_assets.copies import Copies\n"
        "copies = Copies(Path(sys.argv[1]), 1000, 'VLM_CACHE')\n"
        "copies.keep('used', lambda path: (path / 'file').write_bytes(bytes(1000)))\n"
        "copies.keep('half', lambda path: os.kill(os.getpid(), 9))\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    assert names(tmp_path) == {"used"} and len(list(tmp_path.glob(".pid*"))) == 1
    with Copies(tmp_path, SIZE, "VLM_CACHE").use("new", content):
        assert names(tmp_path) == {"new"} and list(tmp_path.glob(".pid*")) == []


def test_what_another_living_process_uses_stays(tmp_path: Path):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from vlm_assets.copies import Copies\n"
        "copies = Copies(Path(sys.argv[1]), 1000, 'VLM_CACHE')\n"
        "copies.keep('theirs', lambda path: (path / 'file').write_bytes(bytes(1000)))\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with Copies(tmp_path, SIZE, "VLM_CACHE").use("mine", content):
            assert names(tmp_path) == {"theirs", "mine"}
        assert os.path.exists(tmp_path / "theirs" / "file")
        other.communicate()


def test_no_room_and_no_place_are_one_clear_line_each(tmp_path: Path):
    def full(path: Path) -> None:
        content(path)
        Path("/dev/full").write_bytes(b"the kernel's own answer to a disk without room")

    with pytest.raises(StoreError, match=r"No space left on device.*set VLM_CACHE to a larger disk"):
        Copies(tmp_path / "cache", SIZE, "VLM_CACHE").keep("a", full)
    assert names(tmp_path / "cache") == set()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"Cannot write copies to .*file/cache: Not a directory\. .* set VLM_CACHE"):
        Copies(tmp_path / "file" / "cache", SIZE, "VLM_CACHE").keep("a", content)
