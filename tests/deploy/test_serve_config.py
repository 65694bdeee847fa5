"""The serveConfigV2 of each value file: no key that Serve does not know, and deployed on a real Ray, which captions."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import mlflow
import pytest
import yaml
from pydantic import BaseModel

from tests.deploy.chart import ROOT, SITES, needs_helm, objects, of_kind, pods
from tests.tiny import tiny_bundle
from vlm_serving.bundle import open_bundle
from vlm_serving.config import ServingConfig
from vlm_serving.security import key_line, new_key

# Ray's own use of pydantic
pytestmark = [needs_helm, pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")]
ISOLATED = ["unshare", "--pid", "--fork", "--mount-proc", "--net", "--kill-child"]
isolated = pytest.mark.skipif(
    subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs the right to make namespaces (root)",
)


def serve_config(site: str, *sets: str) -> dict[str, Any]:
    (service,) = of_kind(objects(site, *sets), "RayService")
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def unknown_keys(value: Any, model: type[BaseModel], at: str = "") -> list[str]:
    """Keys that Serve's schema does not have: pydantic lets them pass in silence."""
    found: list[str] = []
    for key, one in value.items():
        field = model.model_fields.get(key)
        if field is None:
            found.append(f"{at}{key}")
            continue
        for inner in _models_in(field.annotation):
            for part in one if isinstance(one, list) else [one]:
                if isinstance(part, dict):
                    found += unknown_keys(part, inner, f"{at}{key}.")
    return found


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


@pytest.mark.parametrize("site", SITES)
def test_serve_knows_every_key_and_the_captioner_every_setting(site: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    config = serve_config(site)
    assert unknown_keys(config, ServeDeploySchema) == []
    ServeDeploySchema.model_validate(config)
    settings = ServingConfig(**config["applications"][0]["args"])
    assert settings.anonymous == "refuse"
    assert config["http_options"]["request_timeout_s"] > settings.deadline_s  # whose answer tells more
    assert settings.is_split({"CPU": 8}) == (site != "laptop")


def test_a_misspelt_key_is_found() -> None:
    from ray.serve.schema import ServeDeploySchema

    config = serve_config("laptop")
    config["applications"][0]["deployments"][0]["num_replica"] = 3
    config["http_option"] = {}
    assert unknown_keys(config, ServeDeploySchema) == ["applications.deployments.num_replica", "http_option"]


def test_it_says_what_deploy_serve_yaml_says() -> None:
    plain = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
    (ours,), (theirs,) = serve_config("gpu-pool")["applications"], plain["applications"]
    for key in ("name", "route_prefix", "import_path"):
        assert ours[key] == theirs[key]
    (ours,), (theirs,) = ours["deployments"], theirs["deployments"]
    assert ours == {**theirs, "user_config": {**theirs["user_config"], "wait_for_bundle": True}}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Below /tmp itself: the paths of Ray's sockets end at 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="vlm-helm-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@isolated
@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("site", "sets", "deployments"),
    [
        ("laptop", (), ["Captioner"]),
        ("gpu-pool", ("serve.settings.num_gpus=0", "serve.settings.num_cpus=1"), ["Captioner", "Ingress"]),
    ],
)
def test_a_real_ray_takes_it_and_answers(
    site: str, sets: tuple[str, ...], deployments: list[str], folder: Path, tmp_path: Path
) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    here = (*sets, "serve.settings.ingress_min_replicas=1", "serve.settings.ingress_num_cpus=1")
    found = objects(site, *here)
    (folder / "serve.yaml").write_text(yaml.safe_dump(serve_config(site, *here)))
    (service,) = of_kind(found, "RayService")
    key, digest = new_key()
    (folder / "keys").write_text(key_line("shop", digest))
    registry = f"sqlite:///{folder}/mlflow.db"
    assert mlflow.MlflowClient(registry, registry).search_registered_models() == []
    environment = {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "HOME": str(folder),
        "PYTHONPATH": str(ROOT), "VLM_API_KEYS_FILE": str(folder / "keys"), "CALLER_KEY": key,
        "MLFLOW_TRACKING_URI": registry,
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # a busy machine takes its time
    }  # fmt: skip
    told = environment_of(service)
    assert told.get("RAY_SERVE_ENABLE_HA_PROXY") == ("1" if site == "gpu-pool" else None)
    if told.get("RAY_SERVE_ENABLE_HA_PROXY"):
        environment |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", "HA_PROXY": "1"}
    probes = probes_of(found)
    driver = f'ip link set lo up && exec "{sys.executable}" -m tests.deploy.serve_driver "$0" "$1" "$2" "$3"'
    with (folder / "output").open("w") as output:
        done = subprocess.run(
            [*ISOLATED, "bash", "-c", driver, str(folder / "serve.yaml"), str(bundle), json.dumps(sorted(probes)),
             str(folder)],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=500, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (folder / "output").read_text()[-3000:]
    seen = json.loads((folder / "seen.json").read_text())
    assert seen["ready_before"] == 503
    assert seen["args"] == serve_config(site, *here)["applications"][0]["args"]
    assert seen["without_key"] == 401
    assert seen["answer"]["captions"][0]["text"]
    assert seen["answer"]["model"]["version"] == open_bundle(bundle).version
    assert (seen["status"], seen["deployments"]) == ("RUNNING", deployments)
    assert seen["http_options"]["host"] == "0.0.0.0"
    assert seen["probes"] == dict.fromkeys(probes, 200)
    assert seen["without_token"] in (401, 403)
    assert seen["metrics"] == 200
    assert seen["haproxy"] == (200 if site == "gpu-pool" else 0)


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """What the chart tells the Ray pods directly."""
    container = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    return {one["name"]: one["value"] for one in container["env"]}


def probes_of(found: list[dict[str, Any]]) -> set[str]:
    """`PORT/path` of every HTTP probe of Ray's pods."""
    probes: set[str] = set()
    for pod in pods(found):
        for container in pod.containers if pod.of.startswith("RayService") else []:
            ports = {one["name"]: one["containerPort"] for one in container["ports"]}
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container[name]["httpGet"]
                probes.add(f"{ports[probe['port']]}{probe['path']}")
    return probes
