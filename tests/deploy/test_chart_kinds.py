"""Every object is of a kind that Kubernetes or a known operator has, and says nothing that the kind does not know."""

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import CRDS, NAMESPACE, ROOT, SITES, needs_helm, objects, of_kind
from tests.deploy.crds import faults

VALIDATE = ROOT / ".venv-helm" / "bin" / "kubernetes-validate"
OPERATORS_KINDS = {"RayService", "RayJob", "ServiceMonitor", "PrometheusRule"}  # of KubeRay, of Prometheus' operator

needs_schemas = pytest.mark.skipif(not VALIDATE.is_file(), reason="no kubernetes-validate; run `make helm-check`")
needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"no KubeRay CRDs at {CRDS}; set KUBERAY_CRDS")
pytestmark = needs_helm


def told_of(found: list[dict[str, Any]], folder: Path) -> list[str]:
    """Everything that kubernetes-validate does not pass; it warns of unknown kinds and versions with exit code 0."""
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(found))
    done = subprocess.run([VALIDATE, "-k", "1.37", "--strict", file], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    passed = [line for line in lines if re.match(r"INFO .* passed for resource ", line)]
    assert len(passed) + len([line for line in lines if not line.startswith("INFO")]) >= len(found)
    return [line for line in lines if line not in passed]


@needs_schemas
@pytest.mark.parametrize("site", SITES)
def test_kubernetes_own_kinds_are_strictly_valid(site: str, tmp_path: Path) -> None:
    ours = [one for one in objects(site) if one["kind"] not in OPERATORS_KINDS]
    assert told_of(ours, tmp_path) == []


@needs_schemas
def test_the_check_finds_unknown_kinds_removed_versions_and_unknown_keys(tmp_path: Path) -> None:
    (budget, *_) = of_kind(objects("gpu-pool"), "PodDisruptionBudget")
    removed = {**budget, "apiVersion": "policy/v1beta1"}
    unknown = {**budget, "kind": "PodDisruptionBudgett"}
    typo = {**budget, "spec": {**budget["spec"], "minAvailible": 1}}
    for wrong in (removed, unknown, typo):
        assert told_of([wrong], tmp_path)


@needs_crds
@pytest.mark.parametrize("site", SITES)
def test_ray_objects_are_as_kuberay_describes_them(site: str) -> None:
    found = [one for one in objects(site) if one["kind"] in ("RayService", "RayJob")]
    assert [one["kind"] for one in found] == (["RayService"] if site == "laptop" else ["RayService", "RayJob"])
    for one in found:
        assert faults(one, CRDS / f"ray.io_{one['kind'].lower()}s.yaml") == []


@needs_crds
def test_the_check_finds_a_typo_in_a_ray_object() -> None:
    (service,) = of_kind(objects("gpu-pool"), "RayService")
    wrong = copy.deepcopy(service)
    cluster = wrong["spec"]["rayClusterConfig"]
    cluster["enableInTreeAutoscalling"] = True
    cluster["authOptions"]["mode"] = "tokens"
    cluster["workerGroupSpecs"][0]["minReplicas"] = "1"
    told = faults(wrong, CRDS / "ray.io_rayservices.yaml")
    assert len(told) == 3
    assert any("enableInTreeAutoscalling" in one for one in told)


@pytest.mark.parametrize("site", SITES)
def test_names_leave_room_for_what_kuberay_appends(site: str) -> None:
    """KubeRay refuses a RayService or RayJob whose name is longer than 47 characters."""
    for one in of_kind(objects(site), "RayService"):
        assert len(one["metadata"]["name"]) <= 47


def test_rays_autoscaler_reads_the_groups_as_meant() -> None:
    """Through the parser that Ray's autoscaler itself uses on KubeRay."""
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,  # pyright: ignore[reportPrivateUsage]
    )

    (service,) = of_kind(objects("gpu-pool"), "RayService")
    cluster = {"metadata": {"name": "c", "namespace": NAMESPACE}, "spec": service["spec"]["rayClusterConfig"]}
    config = _derive_autoscaling_config_from_ray_cr(cluster)
    groups = config["available_node_types"]
    gpu, cpu, head = groups["gpu"], groups["cpu"], groups["headgroup"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 8)
    assert (gpu["resources"]["CPU"], gpu["resources"]["GPU"]) == (6, 1)
    assert gpu["resources"]["memory"] == 24 * 1024**3
    assert (cpu["min_workers"], cpu["max_workers"], "GPU" in cpu["resources"]) == (2, 6, False)
    assert head["resources"]["CPU"] == 0  # no replica runs beside the cluster's memory
    assert config["idle_timeout_minutes"] == 5
    assert config["max_workers"] == 14
