"""README cannot rot: its commands run, and every make target, path and variable it names exists.

A ```bash block after a line `<!-- run -->` is executed as it stands, from the project's root with .venv active and an
empty DAGSTER_HOME. Long ones (`make demo`) carry no such line; that their target exists is checked all the same.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BASH_BLOCK = re.compile(r"^(<!-- run -->\n+)?```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TREE_BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROOM = r"(?:vlm_assets|vlm_serving|tests|docs|deploy|tools|dagster_home/presets|\.ci|\.github)"
PATH = re.compile(rf"(?<![\w./-]){ROOM}/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
VARIABLE = re.compile(r"\bVLM_[A-Z_]+\b")

BLOCKS = [(bool(match[1]), match[2]) for match in BASH_BLOCK.finditer(README)]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def prose_commands() -> str:
    """README's code: blocks and `spans`; "make" is also an English word."""
    return "\n".join([*(text for _, text in BLOCKS), *re.findall(r"`([^`\n]+)`", README)])


@pytest.mark.parametrize("block", [text for run, text in BLOCKS if run] or [None])
def test_marked_blocks_run(block: str | None, tmp_path: Path):
    if block is None:
        pytest.fail("README marks no block with <!-- run -->: its commands are not checked")
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(tmp_path),
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_every_make_target_exists():
    named = set(TARGET.findall(prose_commands()))
    assert "demo" in named
    assert named <= make_targets()


def test_every_path_exists():
    named = set(PATH.findall(README)) | {link.strip() for link in LINK.findall(README)}
    assert named
    assert not {path for path in named if not (ROOT / path).exists() and "NAME" not in path}


def test_every_variable_is_read_somewhere():
    folders = ("vlm_assets", "vlm_serving", "tests")
    sources = "\n".join(file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py"))
    assert not {name for name in VARIABLE.findall(README) if name not in sources}
