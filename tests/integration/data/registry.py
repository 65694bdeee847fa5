"""What a person does in a data registry, typed as commands."""

import os
import subprocess
from pathlib import Path

from vlm_assets.data.registry_commands import OWN_DVC


def make_registry(root: Path, remote: str) -> None:
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main")
    dvc(root, "init", "--quiet")
    dvc(root, "remote", "add", "--quiet", "-d", "storage", remote)
    commit_by_hand(root, "Start")


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout


def dvc(root: Path, *arguments: str) -> str:
    command = [str(OWN_DVC), *arguments]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit_by_hand(root: Path, message: str) -> None:
    git(root, "add", "--all")
    git(root, "-c", "user.name=somebody", "-c", "user.email=somebody@localhost", "commit", "--quiet", "-m", message)


def files_of(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in paths}
