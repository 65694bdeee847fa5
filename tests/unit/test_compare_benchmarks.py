"""The table of regressions: what is worse is said whichever way a figure points, and what is missing counts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.figures import Figure

ROOT = Path(__file__).resolve().parents[2]
SPEED = Figure("speed", (100.0,), "pictures/s")
TIME = Figure("time", (10.0,), "s")
OFF = Figure("off", (0.5,), "levels", at_most=1.0)


def compare(folder: Path, old: list[Figure], new: list[Figure], *options: str) -> "subprocess.CompletedProcess[str]":
    for name, figures in (("old", old), ("new", new)):
        (folder / f"{name}.json").write_text(json.dumps({"figures": [figure.to_json() for figure in figures]}))
    command = [sys.executable, ROOT / "tools" / "compare_benchmarks.py", folder / "old.json", folder / "new.json"]
    return subprocess.run([*command, *options], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("new", "code", "line"),
    [
        (Figure("speed", (70.0,), "pictures/s"), 1, "speed         100          70      -30%  WORSE"),
        (Figure("speed", (80.0,), "pictures/s"), 0, "speed         100          80      -20%  same"),
        (Figure("speed", (150.0, 150.0, 1.0), "pictures/s"), 0, "speed         100         150      +50%  better"),
        (Figure("time", (20.0,), "s"), 1, "time           10          20      -50%  WORSE"),
        (Figure("off", (0.9,), "levels", at_most=1.0), 1, "off           0.5         0.9      -44%  WORSE"),
    ],
)
def test_one_figure(tmp_path: Path, new: Figure, code: int, line: str):
    old = next(figure for figure in (SPEED, TIME, OFF) if figure.name == new.name)
    done = compare(tmp_path, [old], [new])
    assert (done.returncode, done.stdout.splitlines()[0].split()) == (code, line.split())


def test_the_tolerance_can_be_set(tmp_path: Path):
    assert compare(tmp_path, [TIME], [Figure("time", (11.0,), "s")], "--tolerance", "0.05").returncode == 1


def test_what_is_gone_fails_and_what_is_new_does_not(tmp_path: Path):
    done = compare(tmp_path, [SPEED, TIME], [SPEED, OFF])
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split() == ["time", "10", "–", "GONE"]
    assert done.stdout.splitlines()[2].split() == ["off", "–", "0.5", "new"]
    assert done.stdout.splitlines()[-1] == "3 figures, 1 worse by more than 25% or gone"


def test_a_file_that_is_no_result(tmp_path: Path):
    done = compare(tmp_path, [], [SPEED])
    assert (done.returncode, done.stderr) == (
        1,
        f"{tmp_path}/old.json holds no figures: the benchmark measured nothing.\n",
    )


def test_the_committed_figures_are_a_result():
    baseline = ROOT / "tests" / "benchmarks" / "baseline" / "bench-data.json"
    same = subprocess.run(
        [sys.executable, ROOT / "tools" / "compare_benchmarks.py", baseline, baseline],
        capture_output=True,
        text=True,
        check=False,
    )
    assert same.returncode == 0, same.stderr
