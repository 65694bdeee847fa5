"""The checkers over the workflows and the Jenkinsfile, and over planted mistakes: a checker that finds none is none."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
JENKINSFILE = ROOT / "deploy" / "jenkins" / "Jenkinsfile"


def tool(name: str) -> str:
    """The checker of .venv-ci, or of the PATH."""
    own = ROOT / ".venv-ci" / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None and os.environ.get("REQUIRE_CI_TOOLS") == "1":
        pytest.fail(f"{name} is missing, and REQUIRE_CI_TOOLS is set")
    return found or pytest.skip(f"{name} is missing: make ci-check installs it")


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)


def test_actionlint_finds_nothing_here_and_a_planted_typo(tmp_path: Path):
    done = run(tool("actionlint"), "-shellcheck=", *WORKFLOWS)
    assert done.returncode == 0, done.stdout
    typo = tmp_path / "typo.yml"
    typo.write_text(WORKFLOWS[0].read_text().replace("matrix.part", "matrix.prat"))
    done = run(tool("actionlint"), typo)
    assert done.returncode == 1
    assert 'property "prat" is not defined' in done.stdout


def test_zizmor_finds_nothing_here_and_a_planted_injection(tmp_path: Path):
    done = run(tool("zizmor"), "--offline", "--no-progress", ROOT / ".github")
    assert done.returncode == 0, done.stdout
    text = WORKFLOWS[0].read_text().replace("make check", "make check BRANCH=${{ github.head_ref }}")
    unpinned = re.sub(r"actions/checkout@\w{40} # v[\d.]+", "actions/checkout@v4", text)
    (tmp_path / "bad.yml").write_text(unpinned)
    done = run(tool("zizmor"), "--offline", "--no-progress", tmp_path / "bad.yml")
    assert done.returncode != 0
    assert "template-injection" in done.stdout and "unpinned-uses" in done.stdout


def test_the_schemas_of_workflows_and_dependabot(tmp_path: Path):
    check = tool("check-jsonschema")
    assert run(check, "--builtin-schema", "vendor.github-workflows", *WORKFLOWS).returncode == 0
    assert run(check, "--builtin-schema", "vendor.dependabot", ROOT / ".github" / "dependabot.yml").returncode == 0
    (tmp_path / "bad.yml").write_text(WORKFLOWS[0].read_text().replace("pull_request:", "pull_requests:"))
    assert run(check, "--builtin-schema", "vendor.github-workflows", tmp_path / "bad.yml").returncode == 1


def stages(jenkinsfile: Path) -> "subprocess.CompletedProcess[str]":
    java = next(iter(sorted(Path("/usr/lib/jvm").glob("java-17-openjdk-*"))), None)
    if shutil.which("groovy") is None or java is None:
        pytest.skip("groovy with a Java 17 is missing: apt install groovy openjdk-17-jre-headless")
    environment = {**os.environ, "JAVA_HOME": str(java)}
    command = ["groovy", str(ROOT / "deploy" / "jenkins" / "stages.groovy"), str(jenkinsfile)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_jenkins_has_the_stages_of_github_with_the_same_commands():
    done = stages(JENKINSFILE)
    assert done.returncode == 0, done.stderr
    there = {stage["name"]: stage["commands"] for stage in json.loads(done.stdout)}
    jobs: dict[str, dict[str, Any]] = {}
    for name in ("ci", "nightly", "release"):
        jobs |= yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]
    here = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert list(there) == list(here)
    assert there == here
    axis = next(stage["axis"] for stage in json.loads(done.stdout) if stage["name"] == "integration")
    assert axis == jobs["integration"]["strategy"]["matrix"]["part"]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("stage('audit')", "stagez('audit')", "`stagez` may not stand in `stages`"),
        ("steps { sh 'make audit' }", "sh 'make audit'", "`sh` may not stand in `stage`"),
        ("steps { sh 'make audit' }", "steps { }", "stage `audit` does nothing"),
        ("timestamps()", "timestamps(", "unexpected token"),
    ],
)
def test_the_harness_refuses_what_jenkins_would(tmp_path: Path, right: str, wrong: str, said: str):
    text = JENKINSFILE.read_text()
    assert right in text
    (tmp_path / "Jenkinsfile").write_text(text.replace(right, wrong))
    done = stages(tmp_path / "Jenkinsfile")
    assert done.returncode != 0
    assert said in done.stderr
