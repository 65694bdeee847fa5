"""What CI promises, read from the files: pinned actions, least rights, limits, only targets of make, all tests run."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[Any, Any]] = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
JOBS = [(file, name, job) for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()]
IDS = [f"{file}-{name}" for file, name, _ in JOBS]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_are_three():
    assert list(WORKFLOWS) == ["ci", "nightly", "release"]


@pytest.mark.parametrize(("file", "name", "job"), JOBS, ids=IDS)
def test_a_job_has_a_limit_pinned_actions_and_calls_make(file: str, name: str, job: dict[str, Any]):
    assert job["timeout-minutes"] <= 120
    for step in job["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"]), step
        else:
            words = step["run"].split()
            assert words[0] == "make" and words[1] in TARGETS, step["run"]
    checkout = next(step for step in job["steps"] if step["uses"].startswith("actions/checkout@"))
    assert checkout["with"]["persist-credentials"] is False


def test_every_pin_names_its_version_and_one_action_has_one_pin():
    pins = [re.findall(r"uses: (\S+?)@(\w{40}) # (v[\d.]+)$", file.read_text(), re.MULTILINE) for file in FILES]
    uses = [len(re.findall(r"uses:", file.read_text())) for file in FILES]
    assert [len(found) for found in pins] == uses
    named = {action: (sha, version) for found in pins for action, sha, version in found}
    assert all(named[action] == (sha, version) for found in pins for action, sha, version in found)


def test_only_a_release_may_write_and_each_job_only_what_it_needs():
    assert WORKFLOWS["ci"]["permissions"] == WORKFLOWS["nightly"]["permissions"] == {"contents": "read"}
    assert WORKFLOWS["release"]["permissions"] == {}
    rights = {
        name: {k for k, v in job["permissions"].items() if v == "write"} for f, name, job in JOBS if f == "release"
    }
    assert rights == {
        "notes": set(),
        "images": {"packages", "id-token"},
        "chart": {"packages"},
        "publish": {"contents"},
    }
    assert all("concurrency" in workflow for workflow in WORKFLOWS.values())


def test_nothing_is_published_before_it_is_scanned_or_after_a_refused_tag():
    jobs = WORKFLOWS["release"]["jobs"]
    assert [jobs[name].get("needs") for name in ("notes", "images", "chart", "publish")] == [
        None, "notes", "images", "chart",
    ]  # fmt: skip
    order = [step["run"] for step in jobs["images"]["steps"] if "run" in step]
    assert order == [
        f"make {name}" for name in ("images", "images-scan", "registry-login", "images-push", "images-sign")
    ]


def test_the_matrix_runs_every_integration_test():
    parts = set(WORKFLOWS["ci"]["jobs"]["integration"]["strategy"]["matrix"]["part"])
    folder = ROOT / "tests" / "integration"
    folders = {path.name for path in folder.iterdir() if path.is_dir() and list(path.glob("**/test_*.py"))}
    assert parts == (folders - {"airflow"}) | {"test_*.py"}  # which is all slow, and nightly's: make deploy-check


def test_every_lock_file_is_watched():
    watched = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    ecosystems = {one["package-ecosystem"]: one for one in watched}
    assert set(ecosystems) == {"pip", "github-actions", "docker"}
    patterns = ("*constraints.txt", "tools/*constraints.txt", "deploy/**/*constraints.txt")
    listed = {file.parent for pattern in patterns for file in ROOT.glob(pattern)}
    assert {f"/{path.relative_to(ROOT)}".replace("/.", "/") for path in listed} <= set(ecosystems["pip"]["directories"])
    assert all(one["cooldown"]["default-days"] >= 7 for one in watched)


def test_hooks_name_files_that_exist():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    paths = [word for hook in hooks for word in hook["entry"].split() if word.startswith("tests/")]
    assert len(paths) >= 4
    assert all((ROOT / path).exists() for path in paths)


def notes(tag: str, changelog: str, version: str) -> "subprocess.CompletedProcess[str]":
    code = (
        "import sys; sys.path.insert(0, 'tools'); from release_notes import notes; print(notes(*sys.argv[1:4]), end='')"
    )
    command = [sys.executable, "-c", code, tag, changelog, version]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_release_notes_are_this_versions_part_of_the_changelog():
    changelog = "## Unreleased\n\n- next\n\n## 1.2.0 (2026-12-01)\n\n- this\n- that\n\n## 1.1.0\n\n- old\n"
    assert notes("v1.2.0", changelog, "1.2.0").stdout == "- this\n- that\n"
    wrong = notes("v1.3.0", changelog, "1.2.0")
    assert wrong.returncode == 1
    assert wrong.stderr == "The tag is 'v1.3.0', pyproject.toml says 1.2.0: one of the two is wrong.\n"
    silent = notes("v1.3.0", changelog, "1.3.0")
    assert silent.stderr == "CHANGELOG.md says nothing of 1.3.0: rename 'Unreleased' to '1.3.0 (DATE)'.\n"
