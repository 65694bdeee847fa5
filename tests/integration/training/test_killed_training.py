"""SIGKILL at any moment, then the same command again: the same losses and the same weights, bit for bit."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_bundle

CLONE = Path(__file__).parents[3]
RANDOM_STEP = random.Random().randint(7, 28)  # another one in each run of the tests; the test's name tells which


def run(bundle: Path, folder: Path, when: str) -> int:
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.training.killed_training"]
    command += [str(bundle), str(folder / "scratch"), str(folder / "out"), when]
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        command, cwd=CLONE, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    return json.loads((folder / "out").read_text()), torch.load(folder / "out.pt")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def whole(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert run(bundle, folder, "never") == 0
    return folder


@pytest.mark.parametrize("when", ["step 6", "epoch 8", "write 18", f"step {RANDOM_STEP}"])
def test_killed_and_run_again_equals_never_killed(when: str, bundle: Path, whole: Path, tmp_path: Path) -> None:
    assert run(bundle, tmp_path, when) == -9
    assert run(bundle, tmp_path, "never") == 0
    (expected, weights), (found, again) = outcome(whole), outcome(tmp_path)
    assert found["curves"] == expected["curves"]
    assert found["kept"] == expected["kept"]
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    number = int(when.split()[1])
    newest = {"step": (number - 1) // 6 * 6, "epoch": 12, "write": 12}[when.split()[0]]
    assert found["resumed"] == newest
