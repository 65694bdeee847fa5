"""Working directories: what a killed run left is kept for its next run, and not for ever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm_assets.contracts import Recipe
from vlm_assets.store import Draft, Store

ROOT = Path(__file__).resolve().parents[3]
BEFORE, AFTER = (Recipe("rows", "1", inputs={"source": source}) for source in ("before", "after"))
EIGHT_DAYS_S = 8 * 24 * 3600
KILLED = """
import os, sys
from vlm_assets.store import Store
from tests.unit.vlm_assets.test_scratch import BEFORE
(Store(sys.argv[1]).scratch(BEFORE) / "finished").write_text("x")
os.kill(os.getpid(), 9)
"""
WORKING = KILLED.replace("os.kill(os.getpid(), 9)", "print('ready', flush=True); sys.stdin.read()").replace(
    "Store(sys.argv[1])", "(store := Store(sys.argv[1]))"
)


def directories(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".vlm" / "scratch").iterdir())


def age(root: Path, recipe: Recipe) -> None:
    path = root / ".vlm" / "scratch" / f"rows-{recipe.version}"
    for entry in (*path.iterdir(), path):
        os.utime(entry, (time.time() - EIGHT_DAYS_S,) * 2)


def build(root: Path, recipe: Recipe) -> None:
    store = Store(root)

    def write(draft: Draft) -> None:
        (store.scratch(recipe) / "part").write_text("x")
        (draft.path / "rows").write_text("x")

    store.build(recipe, write)


def kill_an_import(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(root)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and directories(root) == [f"rows-{BEFORE.version}"]


def test_what_a_killed_run_left_goes_a_week_later_if_its_source_has_changed(tmp_path: Path):
    kill_an_import(tmp_path)
    build(tmp_path, AFTER)
    assert directories(tmp_path) == [f"rows-{BEFORE.version}"], "the old source may come back tomorrow"
    age(tmp_path, BEFORE)
    build(tmp_path, Recipe("rows_of_another_asset", "1"))
    build(tmp_path, AFTER)
    assert directories(tmp_path) == [f"rows-{BEFORE.version}"], (
        "others' are not touched, and a reused artifact sweeps none"
    )
    build(tmp_path, Recipe("rows", "2"))
    assert directories(tmp_path) == []


def test_what_a_living_process_holds_stays_however_old(tmp_path: Path):
    command = [sys.executable, "-c", WORKING, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        age(tmp_path, BEFORE)
        build(tmp_path, AFTER)
        build(tmp_path, BEFORE)
        assert directories(tmp_path) == [f"rows-{BEFORE.version}"], "neither swept nor taken away by who was faster"
        other.communicate()
    age(tmp_path, BEFORE)
    build(tmp_path, Recipe("rows", "2"))
    assert directories(tmp_path) == []


def test_a_run_that_fails_before_it_has_anything_leaves_no_directory(tmp_path: Path):
    store = Store(tmp_path)

    def fail(_: Draft) -> None:
        (store.scratch(BEFORE) / ".lock").touch()
        raise ValueError("the source is empty")

    with pytest.raises(ValueError, match="the source is empty"):
        store.build(BEFORE, fail)
    assert directories(tmp_path) == []
    (tmp_path / ".vlm" / "scratch" / f"rows-{BEFORE.version}").mkdir()  # killed that early
    build(tmp_path, AFTER)
    assert directories(tmp_path) == []
