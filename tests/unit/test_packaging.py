"""The files that install and describe the project agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


def locked() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def requirements() -> list[Requirement]:
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]


def test_every_requirement_is_locked_at_a_version_it_allows():
    versions = locked()
    for requirement in requirements():
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_lock_names_packages_only():
    text = (ROOT / "constraints.txt").read_text()
    assert " @ " not in text
    assert "file:" not in text
    assert "\n-e " not in text
    assert not any(version.local for version in locked().values())  # a build tag ties the lock to one kind of machine


def test_every_dagster_package_has_a_floor():
    named = [requirement for requirement in requirements() if requirement.name.startswith("dagster")]
    assert len(named) >= 4
    assert all(">=" in str(requirement.specifier) for requirement in named)


def test_dvc_stays_out():
    assert not {name for name in locked() if name.startswith(("dvc", "hydra-core", "omegaconf"))}
    assert locked()["antlr4-python3-runtime"] >= Version("4.13")


def test_every_make_target_is_phony_and_explained():
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    assert targets == set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, re.MULTILINE))
    assert targets == set(re.findall(r"^([a-z-]+):.*## \w", MAKEFILE, re.MULTILINE))


def test_ci_and_the_workflow_call_make():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    for target in ("make check", "make test"):
        assert any(target in step for step in steps)
        assert target in (ROOT / ".ci" / "run").read_text()
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_the_instance_of_the_project_stays_on_its_machine():
    instance = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    assert instance["telemetry"] == {"enabled": False}
    assert instance["nux"] == {"enabled": False}
    assert instance["concurrency"]["pools"] == {"default_limit": 1, "granularity": "op"}


def test_the_instance_on_postgresql_differs_in_its_storage_only():
    one_machine = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    postgresql = yaml.safe_load((ROOT / "deploy" / "docker" / "dagster.yaml").read_text())
    assert set(postgresql.pop("storage")) == {"postgres"}
    assert one_machine.pop("storage")
    assert postgresql == one_machine
