"""The chart, rendered by the real helm: its objects, and the pods that come of them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "vlm-captioning"
SITES = ("laptop", "gpu-node", "gpu-pool")  # values-NAME.yaml
RELEASE, NAMESPACE = "vlm-captioning", "captions"
HELM = shutil.which("helm", path=f"{ROOT / '.venv-helm/bin'}{os.pathsep}{os.environ.get('PATH', '')}")
CRDS = Path(os.environ.get("KUBERAY_CRDS") or ROOT.resolve().parent / "shared" / "data" / "kuberay-crds")

needs_helm = pytest.mark.skipif(HELM is None, reason="no helm; `make helm-check` installs one into .venv-helm")
Object = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """helm's answer, whatever it is."""
    assert HELM is not None
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False)


def values_of(site: str) -> list[str]:
    """helm's arguments for a value file."""
    return ["-f", str(CHART / f"values-{site}.yaml")]


@cache
def rendered(site: str, sets: tuple[str, ...] = ()) -> str:
    """The YAML of a value file, as helm would send it to Kubernetes."""
    settings = [word for one in sets for word in ("--set", one)]
    done = helm("template", RELEASE, str(CHART), "-n", NAMESPACE, *values_of(site), *settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects(site: str, *sets: str) -> list[Object]:
    """The objects of a value file, and the RayJob that a training would be."""
    found = [one for one in yaml.safe_load_all(rendered(site, sets)) if one]
    return [*found, ray_job(found)] if any(name_of(one).endswith("-ray-job") for one in found) else found


def ray_job(found: Sequence[Object]) -> Object:
    """What the ConfigMap for trainings holds."""
    (template,) = (one for one in found if name_of(one).endswith("-ray-job"))
    job = yaml.safe_load(template["data"]["job.yaml"])
    job["metadata"]["name"] = "training"  # the run's pod gives it one
    return job


def of_kind(found: Sequence[Object], kind: str) -> list[Object]:
    return [one for one in found if one["kind"] == kind]


def name_of(one: Object) -> str:
    return one["metadata"].get("name", "")


@dataclass(frozen=True)
class Pod:
    """One kind of pod: where it comes from, its labels and its spec."""

    of: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, initial ones included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def __str__(self) -> str:
        return self.of


def pods(found: Sequence[Object]) -> Iterator[Pod]:
    """Every pod template in the objects; runs' pods are in dagster.yaml and told by `run_pod` of the test."""
    for one in found:
        spec, name = one.get("spec", {}), f"{one['kind']}/{name_of(one)}"
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield _pod(name, spec["template"])
        cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec")
        if cluster:
            yield _pod(f"{name} head", cluster["headGroupSpec"]["template"])
            for group in cluster["workerGroupSpecs"]:
                yield _pod(f"{name} {group['groupName']}", group["template"])
        if "submitterPodTemplate" in spec:
            yield _pod(f"{name} submitter", spec["submitterPodTemplate"])


def _pod(of: str, template: Object) -> Pod:
    return Pod(of, template["metadata"]["labels"], template["spec"])


def data_of(found: Sequence[Object], suffix: str) -> dict[str, str]:
    """What a ConfigMap holds."""
    (one,) = (one for one in of_kind(found, "ConfigMap") if name_of(one) == f"{RELEASE}-{suffix}")
    return one["data"]


def schema_of_values() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text())
