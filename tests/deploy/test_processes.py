"""Processes as the chart starts them: MLflow with its allowed hosts, the code location with its health service."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.chart import NAMESPACE, RELEASE, ROOT, Pod, needs_helm, objects, pods
from vlm_assets.children import end_with_parent
from vlm_serving.processes import free_port

pytestmark = [needs_helm, pytest.mark.integration, pytest.mark.slow]
START_S = 200


def pod(name: str) -> Pod:
    (found,) = (one for one in pods(objects("gpu-pool")) if one.of == f"Deployment/{RELEASE}-{name}")
    return found


@contextmanager
def started(name: str, folder: Path, arguments: list[str], **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The container's command with these arguments."""
    (container,) = pod(name).containers
    assert container["command"][0] == "python"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *container["command"][1:], *arguments], stdout=log, stderr=subprocess.STDOUT, cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def until(ready: Any, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if ready():
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def test_mlflow_answers_to_its_names_in_the_cluster_and_to_no_other(tmp_path: Path) -> None:
    (container,) = pod("mlflow").containers
    port = free_port()
    instead = {"--host": "127.0.0.1", "--port": str(port), "--artifacts-destination": str(tmp_path / "artifacts")}
    arguments = [f"{name}={instead.get(name, value)}" for name, _, value in
                 (one.partition("=") for one in container["args"])]  # fmt: skip
    probe = container["readinessProbe"]["httpGet"]["path"]
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:  # as the kubelet asks: by the pod's address
            return httpx.get(url + probe, headers={"host": "10.1.2.3:5000"}, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def status(host: str) -> int:
        path = "/api/2.0/mlflow/experiments/search?max_results=1"
        return httpx.get(url + path, headers={"host": host}, trust_env=False).status_code

    variables = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path}/m.db",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with started("mlflow", tmp_path, arguments, **variables) as process:
        until(ready, process, tmp_path / "log")
        for host in (f"{RELEASE}-mlflow:5000", f"{RELEASE}-mlflow.{NAMESPACE}.svc.cluster.local:5000"):
            assert status(host) == 200, host
        assert status("evil.example") == 403


def test_the_code_location_has_the_health_service_that_its_probe_asks(tmp_path: Path) -> None:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    (container,) = pod("code-location").containers
    port = free_port()
    arguments = [str(port) if one == "4000" else "127.0.0.1" if one == "0.0.0.0" else one for one in container["args"]]
    service = container["readinessProbe"]["grpc"]["service"]

    def ready() -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=service), timeout=5
                )
            except grpc.RpcError:
                return False
            return answer.status == health_pb2.HealthCheckResponse.SERVING

    home = tmp_path / "home"
    home.mkdir()
    with started("code-location", tmp_path, arguments, DAGSTER_HOME=str(home)) as process:
        until(ready, process, tmp_path / "log")
