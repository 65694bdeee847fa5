"""A training as a RayJob on Kubernetes: KubeRay makes a Ray cluster for it, and takes it away afterwards.

VLM_RAY_JOB names the file with the RayJob to submit (the chart in deploy/helm mounts it). This process asks the API
server with the account of its own pod. One RayJob per training: one that was left behind by a killed run would go on
writing into the same scratch directory, so it is taken away first.
"""

import hashlib
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from vlm_assets.errors import ConfigError, TrainingError

TEMPLATE_ENV = "VLM_RAY_JOB"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # the pod's token, CA and namespace
POLL_S = 2.0
SILENCE_S = 300.0  # of the API server: it may be restarted meanwhile
DELETION_S = 180.0
REQUEST_TIMEOUT_S = 30.0
ENDED = ("Complete", "Failed", "ValidationFailed")


def ray_job_template() -> Path | None:
    """The RayJob that trainings are submitted as; None where they run otherwise."""
    name = os.environ.get(TEMPLATE_ENV, "")
    if name and not Path(name).is_file():
        raise ConfigError(f"{TEMPLATE_ENV} is {name}, and there is no such file. Leave it empty to train elsewhere.")
    return Path(name) if name else None


def ray_job(template: Path, scratch: Path, workers: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """The RayJob of one training: its name from the scratch directory, which no two may share."""
    job: dict[str, Any] = yaml.safe_load(template.read_text())
    job["metadata"]["name"] = "train-" + hashlib.sha256(str(scratch).encode()).hexdigest()[:16]
    job["spec"]["runtimeEnvYAML"] = yaml.safe_dump({"env_vars": dict(environment)})
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    group |= {"replicas": workers, "minReplicas": workers, "maxReplicas": workers}
    return job


class SubmittedJob:
    """A RayJob at the API server, asked for its end like a process."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (ACCOUNT / "token").is_file():
            raise ConfigError(f"{TEMPLATE_ENV} is set, and this is no pod of Kubernetes with an account of its own.")
        self.name: str = job["metadata"]["name"]
        namespace = job["metadata"].get("namespace") or (ACCOUNT / "namespace").read_text().strip()
        self._all = f"https://{host}:{port}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        self._client = httpx.Client(timeout=REQUEST_TIMEOUT_S, verify=context, trust_env=False)
        self._asked_s = self._heard_s = time.monotonic()
        self._status: dict[str, Any] = {}
        self.remove()
        answer = self._ask("POST", self._all, json=dict(job))
        if answer.status_code != 201:
            raise TrainingError(f"Kubernetes did not take the RayJob {self.name}: {_reason(answer)}")

    def poll(self) -> int | None:
        """None while it waits or trains; 0 if it succeeded. Raises TrainingError if nobody answers any more."""
        if time.monotonic() - self._asked_s < POLL_S:
            return None
        self._asked_s = time.monotonic()
        try:
            answer = self._ask("GET", f"{self._all}/{self.name}")
        except httpx.HTTPError as error:
            return self._silent(f"{type(error).__name__}: {error}")
        if answer.status_code == 404:
            self._status = {"message": "it was deleted by somebody else"}
            return 1
        if answer.status_code != 200:
            return self._silent(_reason(answer))
        self._heard_s = self._asked_s
        self._status = answer.json().get("status") or {}
        if self._status.get("jobDeploymentStatus") not in ENDED:
            return None
        return 0 if self._status.get("jobStatus") == "SUCCEEDED" else 1

    def ending(self) -> str:
        """What Kubernetes says of how it ended."""
        told = [str(self._status[key]) for key in ("jobDeploymentStatus", "jobStatus", "reason", "message")
                if self._status.get(key)]  # fmt: skip
        return f"RayJob {self.name}: {', '.join(told) or 'no status'}"

    def remove(self) -> None:
        """Take it away, cluster and all, and wait until it is gone; nothing to do if it is not there."""
        deadline_s = time.monotonic() + DELETION_S
        while (answer := self._ask("DELETE", f"{self._all}/{self.name}")).status_code != 404:
            if answer.status_code not in (200, 202) or time.monotonic() > deadline_s:
                raise TrainingError(f"The RayJob {self.name} of an earlier try cannot be removed: {_reason(answer)}")
            time.sleep(POLL_S)

    def _silent(self, reason: str) -> None:
        if time.monotonic() - self._heard_s > SILENCE_S:
            raise TrainingError(f"Kubernetes has not told of the RayJob {self.name} for {SILENCE_S:.0f} s: {reason}")

    def _ask(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        token = (ACCOUNT / "token").read_text().strip()  # it is replaced every hour
        return self._client.request(method, url, headers={"Authorization": f"Bearer {token}"}, **arguments)


@contextmanager
def submitted(job: Mapping[str, Any]) -> Iterator[SubmittedJob]:
    """Submit; removed if the body raises, for then nobody listens any more. One that ended is KubeRay's to clear."""
    running = SubmittedJob(job)
    try:
        yield running
    except BaseException:
        running.remove()
        raise


def _reason(answer: httpx.Response) -> str:
    try:
        return f"{answer.status_code}, {answer.json()['message']}"
    except (ValueError, KeyError):
        return f"{answer.status_code}, {answer.text[:300]}"
