"""deploy/compose.yaml for real: its core comes up, Dagster runs a job, a model is deployed and captions a picture.

Run by `make compose-check`, which builds the images and names the engine (DOCKER_HOST) and compose (COMPOSE_COMMAND).
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.containers.box import Box, make_box, wait_for
from tests.tiny import picture_bytes, tiny_bundle
from vlm_serving.bundle import open_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
RUNS = "{ runsOrError { ... on Runs { results { runId status jobName } } } }"
DAEMONS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
# run in the container of the code location: the bundle into the store's bucket, and MLflow told that it is champion
REGISTER = """
import boto3, mlflow, pathlib, sys
source, version = pathlib.Path("/tmp/bundle"), sys.argv[1]
bucket = boto3.resource("s3").Bucket("vlm")
for file in source.rglob("*"):
    if file.is_file():
        bucket.upload_file(str(file), f"check/bundle/{file.relative_to(source).as_posix()}")
client = mlflow.MlflowClient()
client.create_registered_model("captioner")
made = client.create_model_version("captioner", "s3://vlm/check/bundle", tags={"bundle_version": version})
client.set_registered_model_alias("captioner", "champion", made.version)
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    compose = os.environ.get("COMPOSE_COMMAND", "").split()
    if not compose:
        pytest.skip("COMPOSE_COMMAND is not set: run `make compose-check`, which builds the images first")
    box = make_box(tmp_path_factory.mktemp("box") / "deploy", compose)
    try:
        box.run("up", "-d", timeout_s=1200)
        yield box
    finally:
        box.run("down", "-v", "--timeout", "20", profiles=("core", "monitoring"))


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def container(box: Box, service: str) -> str:
    return box.run("ps", "-q", service).strip()


def caption(box: Box, key: str) -> httpx.Response:
    return httpx.post(
        f"{box.address('CAPTIONS_PORT')}/v1/captions",
        content=picture_bytes(1),
        headers={"content-type": "image/png", "authorization": f"Bearer {key}"},
        timeout=60,
    )


def test_every_service_is_healthy_without_root_and_on_loopback(box: Box) -> None:
    services = ("postgres", "s3", "mlflow", "code-location", "webserver", "daemon", "serving")
    for service in services:
        one = json.loads(docker("inspect", container(box, service)))[0]
        wait_for(
            lambda service=service: (
                docker("inspect", "-f", "{{.State.Health.Status}}", container(box, service)) == "healthy"
            ),
            service,
        )
        assert one["Config"]["User"].split(":")[0] not in ("", "0", "root"), service
        assert one["HostConfig"]["ReadonlyRootfs"], service
        assert one["HostConfig"]["CapDrop"] == ["ALL"], service
        assert one["HostConfig"]["Memory"] > 0, service
        bound = [address["HostIp"] for all_of in one["HostConfig"]["PortBindings"].values() for address in all_of]
        assert set(bound) <= {"127.0.0.1"}, service


def test_mlflow_answers_its_own_name_only(box: Box) -> None:
    address = f"{box.address('MLFLOW_PORT')}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    assert httpx.get(address, timeout=60).status_code == 200
    assert httpx.get(address, headers={"host": "elsewhere.example"}, timeout=60).status_code == 403


def test_dagster_runs_a_job_from_its_queue_into_the_store_on_s3(box: Box) -> None:
    wait_for(lambda: _daemons_healthy(box), "Dagster's daemons")
    job = {"repositoryLocationName": "vlm_assets", "repositoryName": "__repository__", "jobName": "captioner"}
    selector = {**job, "assetSelection": [{"path": ["raw_dataset"]}]}
    launched = box.graphql(LAUNCH, p={"selector": selector, "runConfigData": {}, "mode": "default"})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    ended = wait_for(lambda: _ended(box, run_id), "the run", timeout_s=600)
    assert ended == "SUCCESS", box.logs()
    listing = "import boto3; print([o.key for o in boto3.resource('s3').Bucket('vlm').objects.all()])"
    assert "store/raw_dataset/" in docker("exec", container(box, "code-location"), "python", "-c", listing)


def _daemons_healthy(box: Box) -> bool:
    statuses = box.graphql(DAEMONS)["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all(one["healthy"] for one in statuses if one["required"])


def _ended(box: Box, run_id: str) -> str:
    status: str = box.graphql(STATUS, id=run_id)["runOrError"]["status"]
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else ""


def test_a_model_is_deployed_with_the_token_captions_with_a_key_and_survives_a_restart(
    box: Box, tmp_path: Path
) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    version = open_bundle(bundle).version
    location = container(box, "code-location")
    # through a pipe: a read-only root takes no `docker cp`
    packed = subprocess.run(
        ["tar", "-C", bundle.parent, "--mode=a+rX", "-c", bundle.name], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["docker", "exec", "-i", location, "tar", "-C", "/tmp", "-x"], input=packed.stdout, check=True)
    docker("exec", location, "python", "-c", REGISTER, version)
    assert caption(box, box.key).status_code == 404  # no model yet
    dashboard = ("--dashboard", "http://serving:8265")
    docker("exec", location, "python", "-m", "vlm_serving", "deploy", "models:/captioner@champion", *dashboard)

    assert caption(box, "vlm_wrong").status_code == 401
    answer = caption(box, box.key)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == version
    first = answer.json()["captions"][0]["text"]
    anonymous = "import httpx; print(httpx.get('http://serving:8265/api/serve/applications/').status_code)"
    assert docker("exec", location, "python", "-c", anonymous) in ("401", "403")

    box.run("restart", "--timeout", "30", "serving")
    wait_for(lambda: httpx.get(f"{box.address('CAPTIONS_PORT')}/readyz", timeout=10).status_code == 200, "the champion")
    again = caption(box, box.key)
    assert (again.headers["x-model-version"], again.json()["captions"][0]["text"]) == (version, first)


def test_prometheus_hears_all_of_the_box_and_reaches_alertmanager(box: Box) -> None:
    box.run("up", "-d", "metrics", "prometheus", "alertmanager", profiles=("core", "monitoring"))

    def asked(what: str) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{box.address('PROMETHEUS_PORT')}/api/v1/{what}", timeout=10).json()["data"]
        return answer

    def deaf() -> list[str] | None:
        targets = asked("targets")["activeTargets"]
        wrong = [f"{one['scrapePool']}: {one['lastError']}" for one in targets if one["health"] != "up"]
        return None if wrong or len(targets) < 3 else [one["scrapePool"] for one in targets]

    assert set(wait_for(deaf, "Prometheus' targets")) == {"captions", "ray", "dagster"}
    rules = [one["name"] for group in asked("rules")["groups"] for one in group["rules"]]
    written = yaml.safe_load((box.folder / "prometheus" / "alerts.yml").read_text())
    alerts = [rule["alert"] for group in written["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts and set(alerts) <= set(rules)
    assert wait_for(lambda: asked("alertmanagers")["activeAlertmanagers"], "Alertmanager")
    assert wait_for(lambda: asked("query?query=vlm_pictures_total")["result"], "the number of pictures")
    assert httpx.get(f"{box.address('ALERTMANAGER_PORT')}/-/ready", timeout=10).status_code == 200


def test_the_state_goes_into_a_folder_and_comes_back_into_an_empty_box(box: Box, tmp_path: Path) -> None:
    before, runs = caption(box, box.key), box.graphql(RUNS)
    assert before.status_code == 200 and runs["runsOrError"]["results"]
    backup = tmp_path / "backup"
    done = box.state("backup", backup)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(word in done.stdout + done.stderr for word in (box.key, "PASSWORD="))

    again, living = box.state("backup", backup), box.state("restore", backup)
    assert again.returncode == 1 and "is there already" in again.stderr
    assert living.returncode == 1 and "has a state already" in living.stderr
    spoilt = shutil.copytree(backup, tmp_path / "spoilt")
    with (spoilt / "dagster.pgdump").open("ab") as file:
        file.write(b"x")
    refused = box.state("restore", spoilt)
    assert refused.returncode == 1 and "damaged" in refused.stderr

    box.run("down", "-v", "--timeout", "30", profiles=("core", "monitoring"))
    done = box.state("restore", backup)
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: httpx.get(f"{box.address('CAPTIONS_PORT')}/readyz", timeout=10).status_code == 200, "the champion")
    after = caption(box, box.key)
    assert after.headers["x-model-version"] == before.headers["x-model-version"]
    assert after.json()["captions"][0]["text"] == before.json()["captions"][0]["text"]
    assert wait_for(lambda: box.graphql(RUNS), "Dagster") == runs
