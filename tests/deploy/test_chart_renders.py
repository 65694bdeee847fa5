"""helm takes the chart and its three value files, and refuses wrong values by name, all at once."""

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.chart import CHART, ROOT, SITES, helm, needs_helm, objects, rendered, values_of

pytestmark = needs_helm


@pytest.mark.parametrize("site", SITES)
def test_lint_finds_nothing(site: str) -> None:
    done = helm("lint", "--strict", str(CHART), *values_of(site))
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout and "ERROR" not in done.stdout


def test_it_packages_with_its_rules(tmp_path: Path) -> None:
    assert helm("package", str(CHART), "-d", str(tmp_path)).returncode == 0
    (package,) = tmp_path.iterdir()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package.name == f"vlm-captioning-{project['version']}.tgz"
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == project["version"]
    listed = subprocess.run(["tar", "tzf", package], capture_output=True, text=True, check=True).stdout
    assert all(f"vlm-captioning/files/rules/{file.name}" in listed for file in (CHART / "files" / "rules").iterdir())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("ray.workerGroup.cpu=3", "at '/ray': additional properties 'workerGroup' not allowed"),
        ("serve.settings.num_replica=3", "at '/serve/settings': additional properties 'num_replica' not allowed"),
        ("serve.settings.max_batch_size=0", "at '/serve/settings/max_batch_size': minimum: got 0, want 1"),
        ("store.uri=gs://pictures", "at '/store/uri': 'gs://pictures' does not match pattern"),
        ("dagster.runs.resources.limits=null", "at '/dagster/runs/resources': missing property 'limits'"),
        ("secrets.rayToken.name=", "at '/secrets/rayToken/name': '' does not match pattern"),
        ("shared.size=lots", "at '/shared/size': 'lots' does not match pattern"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(wrong: str, told: str) -> None:
    done = helm("template", "x", str(CHART), *values_of("laptop"), "--set", wrong)
    assert done.returncode != 0
    assert told in done.stderr


def test_settings_that_contradict_each_other_are_told_all_at_once() -> None:
    wrong = [
        *("ray.haProxy=true", "networkPolicy.enabled=false", "postgresql.internal=false", "images.assets.tag=latest"),
        *("ray.workerGroups.cpu.minReplicas=0", "ingress.captioner.host=a.example"),
        "ray.gcsFaultTolerance.enabled=true",
    ]
    settings = [word for one in wrong for word in ("--set", one)]
    done = helm("template", "x", str(CHART), *values_of("laptop"), *settings)
    assert done.returncode != 0
    for told in (
        "ray.haProxy opens ports 8404 and 9101 on all addresses, and networkPolicy.enabled is false",
        "postgresql.host is empty",
        "images.assets.tag is latest",
        "ray.workerGroups.cpu: minReplicas is 0 and ray.autoscaler.enabled is false: it would never get a pod",
        "ingress.captioner.host is a.example without ingress.captioner.tlsSecret",
        "ray.gcsFaultTolerance.enabled needs ray.gcsFaultTolerance.redisAddress",
    ):
        assert told in done.stderr


def test_notes_name_every_secret_and_the_weak_spots() -> None:
    arguments = ("install", "x", str(CHART), "--dry-run=client", "--set", "networkPolicy.enabled=false")
    notes = helm(*arguments, *values_of("laptop")).stdout.partition("NOTES:")[2]
    for name in ("vlm-postgresql", "vlm-ray-token", "vlm-api-keys", "vlm-caller-key"):
        assert name in notes
    assert "WARNING: network policies are off" in notes
    assert "WARNING: the database is one pod without a backup" in notes


def test_a_release_with_a_name_that_yaml_reads_otherwise() -> None:
    done = helm("template", "y", str(CHART), *values_of("laptop"))
    assert done.returncode == 0, done.stderr
    instances = {one["metadata"]["labels"]["app.kubernetes.io/instance"] for one in yaml.safe_load_all(done.stdout)}
    assert instances == {"y"}


def test_a_cluster_is_replaced_only_when_something_of_it_changes() -> None:
    """KubeRay starts a new cluster when the old one's description differs: a new chart version must not."""

    def cluster(*sets: str) -> object:
        (service,) = (one for one in objects("gpu-pool", *sets) if one["kind"] == "RayService")
        return service["spec"]["rayClusterConfig"]

    assert cluster() == cluster("dagster.maxConcurrentRuns=3", "serve.settings.max_batch_size=16")
    assert cluster() != cluster("store.region=eu-west-1")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    (service,) = (one for one in yaml.safe_load_all(rendered("gpu-pool")) if one and one["kind"] == "RayService")
    assert f"vlm-captioning-{version}" not in str(service["spec"])
