"""A training as a RayJob: submitted to an API server over TLS, trained on a real Ray, heard through Dagster Pipes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import CRDS, data_of, needs_helm, objects
from tests.deploy.crds import faults
from tests.integration.training.conftest import Trajectory, assert_equal, sealed
from tests.integration.training.test_ray_training import CLONE, TWO, Submitted, standing_ray
from tests.kubernetes_api import Cluster, kubernetes
from vlm_assets.errors import ConfigError, TrainingError
from vlm_assets.training import ray_job
from vlm_assets.training.finetune import Inputs

__all__ = ["standing_ray"]


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """An API server, and the environment of a pod that trains on it."""
    folder = tmp_path_factory.mktemp("kubernetes")
    cluster = Cluster({**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(CLONE)})
    if CRDS.is_dir():
        cluster.check = lambda job: faults(job, CRDS / "ray.io_rayjobs.yaml")
    with kubernetes(folder, cluster) as account:
        monkeypatch.setattr(ray_job, "ACCOUNT", account)
        monkeypatch.setattr(ray_job, "POLL_S", 0.1)
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
        yield cluster


@pytest.fixture
def template(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The RayJob as the chart gives it to the pod of a run."""
    file = tmp_path / "job.yaml"
    file.write_text(data_of(objects("gpu-pool"), "ray-job")["job.yaml"])
    monkeypatch.setenv(ray_job.TEMPLATE_ENV, str(file))
    return file


def jobs_path(cluster: Cluster, method: str) -> list[str]:
    return [line for line in cluster.asked if line.startswith(method)]


@needs_helm
@pytest.mark.integration
@pytest.mark.usefixtures("template")
def test_a_ray_job_trains_the_same(
    cluster: Cluster, standing_ray: str, inputs: Inputs, trajectory: Trajectory, tmp_path: Path
) -> None:
    cluster.environment = {**cluster.environment, "RAY_ADDRESS": standing_ray}
    done = Submitted(inputs, TWO, tmp_path / "home")
    assert_equal(sealed(tmp_path / "home" / "out"), trajectory)
    assert done.curve("train_loss") == done.summary["train_loss"]
    (check,) = done.checks
    assert check.passed
    (job,) = cluster.jobs.values()
    assert job["metadata"]["name"].startswith("train-")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert [group[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 2]
    assert not list((tmp_path / "home" / "scratch").glob("pipes-*"))


@needs_helm
@pytest.mark.integration
@pytest.mark.usefixtures("template")
def test_what_a_person_must_mend_comes_back_and_a_job_left_behind_goes_first(
    cluster: Cluster, standing_ray: str, inputs: Inputs, tmp_path: Path
) -> None:
    cluster.environment = {**cluster.environment, "RAY_ADDRESS": standing_ray}
    home = tmp_path / "home"
    left = ray_job.ray_job(Path(os.environ[ray_job.TEMPLATE_ENV]), home / "scratch", 1, {})
    cluster.jobs[left["metadata"]["name"]] = left
    with pytest.raises(TrainingError) as error:
        Submitted(inputs, {**TWO, "frozen_vision_layers": 40}, home)
    assert str(error.value).startswith("frozen_vision_layers is 40, the picture encoder has")
    assert [line.partition(" ")[0] for line in cluster.asked[:3]] == ["DELETE", "DELETE", "POST"]


@needs_helm
def test_a_job_that_dies_without_a_word_is_told_in_kubernetes_words(
    cluster: Cluster, template: Path, inputs: Inputs, tmp_path: Path
) -> None:
    job = yaml.safe_load(template.read_text())
    job["spec"]["entrypoint"] = "python -c 'raise SystemExit(7)'"
    template.write_text(yaml.safe_dump(job))
    with pytest.raises(TrainingError, match=r"RayJob train-\w{16}: Failed, FAILED, AppFailed, Job entrypoint command"):
        Submitted(inputs, TWO, tmp_path / "home")


@needs_helm
@pytest.mark.usefixtures("template")
def test_a_refused_job_is_told_with_the_reason(cluster: Cluster, inputs: Inputs, tmp_path: Path) -> None:
    cluster.check = lambda job: ["spec.rayClusterSpec: quota exceeded"]
    with pytest.raises(TrainingError, match=r"Kubernetes did not take the RayJob train-.*: 422, spec.rayClusterSpec"):
        Submitted(inputs, TWO, tmp_path / "home")


@needs_helm
@pytest.mark.usefixtures("template")
def test_an_interrupted_run_takes_its_job_with_it(cluster: Cluster, tmp_path: Path) -> None:
    job = ray_job.ray_job(Path(os.environ[ray_job.TEMPLATE_ENV]), tmp_path, 1, {})
    job["spec"]["entrypoint"] = "python -c 'import time; time.sleep(60)'"
    with pytest.raises(KeyboardInterrupt), ray_job.submitted(job) as running:
        assert running.poll() is None
        assert list(cluster.jobs) == [running.name]
        raise KeyboardInterrupt
    assert cluster.jobs == {}


def test_without_a_pod_or_a_file_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ray_job.TEMPLATE_ENV, str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match=r"there is no such file. Leave it empty to train elsewhere"):
        ray_job.ray_job_template()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    job: dict[str, Any] = {"metadata": {"name": "train-0"}}
    with pytest.raises(ConfigError, match="this is no pod of Kubernetes"):
        ray_job.SubmittedJob(job)
