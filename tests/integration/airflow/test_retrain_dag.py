"""Real Airflow against a real Dagster: the DAG launches, waits in its trigger, and ends as the gate decided.

`make airflow-test` installs Airflow into .venv-airflow and runs this; without that it is skipped.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.airflow.project import RULES
from vlm_assets.children import end_with_parent
from vlm_serving.processes import free_port

ROOT = Path(__file__).resolve().parents[3]
AIRFLOW = Path(os.environ.get("AIRFLOW_BIN") or ROOT / ".venv-airflow" / "bin" / "airflow")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not AIRFLOW.exists(), reason=f"{AIRFLOW} is missing: make airflow-test installs it"),
]


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A webserver over tests/integration/airflow/project.py, with its daemon's queue left out: runs start at once."""
    home, port = tmp_path_factory.mktemp("dagster"), free_port()
    (home / "dagster.yaml").write_text(
        "run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}\n"
        "telemetry: {enabled: false}\n"
    )
    project = ROOT / "tests" / "integration" / "airflow" / "project.py"
    command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port), "-f", str(project)]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, preexec_fn=end_with_parent
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/server_info", home / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def wait_for(url: str, log: Path) -> None:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.3)
    raise AssertionError(f"nothing at {url}:\n{log.read_text()[-2000:]}")


class Airflow:
    """An Airflow of its own, as deploy/airflow describes it, with the connection in its own store."""

    def __init__(self, home: Path, dagster: str) -> None:
        deploy = ROOT / "deploy" / "airflow"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(deploy / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(deploy / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        address = httpx.URL(dagster)
        where = [f"--conn-schema={address.scheme}", f"--conn-host={address.host}", f"--conn-port={address.port}"]
        self.run("db", "migrate")
        self.run("connections", "add", "vlm_dagster", "--conn-type=http", *where)
        self.run("dags", "reserialize")

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        done = self.attempt(*words)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def attempt(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [str(AIRFLOW), *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=600, cwd="/"
        )

    def retrain(self, **conf: Any) -> str:
        """Everything `dags test` printed."""
        conf = {"location": "project.py", **conf}
        done = self.attempt("dags", "test", "vlm_retrain", "--conf", json.dumps(conf))
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def airflow(dagster: str, tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"), dagster)


def latest_run(dagster: str) -> dict[str, Any]:
    fields = "runId status jobName tags { key value } runConfigYaml"
    query = f"{{ runsOrError(limit: 1) {{ ... on Runs {{ results {{ {fields} }} }} }} }}"
    return httpx.post(f"{dagster}/graphql", json={"query": query}).json()["data"]["runsOrError"]["results"][0]


def test_the_dag_loads_without_a_fault(airflow: Airflow):
    assert "vlm_retrain" in airflow.run("dags", "list").stdout
    assert airflow.run("dags", "list-import-errors", "-o", "json").stdout.splitlines()[-1] == "[]"


def test_a_released_model_is_green_and_the_verdict_is_told(airflow: Airflow, dagster: str):
    told = airflow.retrain(reason="spring is complete")
    run = latest_run(dagster)
    assert (run["status"], run["jobName"]) == ("SUCCESS", "retrain"), told[-3000:]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["vlm/retrain_reason"] == "airflow: spring is complete"
    assert tags["airflow/dag_run"]
    assert "running trigger in line" in told, "the sensor held a worker instead of deferring"
    assert "gate passed, bundle b42: CIDEr above copy" in told, told[-3000:]


def test_a_refusal_is_red_in_the_gates_own_words(airflow: Airflow, dagster: str):
    told = airflow.retrain(config={"ops": {"eval_report": {"config": {"broken": "not_worse_than_champion"}}}})
    run_id = latest_run(dagster)["runId"]
    assert f"The gate refused the candidate of run {run_id}: not_worse_than_champion by 0.4 ± 0.1" in told, told[-3000:]
    assert "not_worse_than_champion" in RULES


def test_a_run_that_dies_is_red_with_its_cause(airflow: Airflow, dagster: str):
    told = airflow.retrain(config={"ops": {"eval_report": {"config": {"error": "no room on the GPU"}}}})
    assert f"Run {latest_run(dagster)['runId']} ended FAILURE: eval_report: " in told, told[-3000:]
    assert "no room on the GPU" in told


def test_without_a_config_the_deployments_preset_counts(airflow: Airflow, dagster: str):
    airflow.retrain(job="with_preset")
    assert "broken: not_worse_than_champion" in latest_run(dagster)["runConfigYaml"]


def test_a_config_that_dagster_refuses_and_a_dagster_that_is_away(airflow: Airflow, dagster: str):
    told = airflow.retrain(config={"ops": {"eval_repot": {}}})
    assert "Dagster did not launch retrain" in told and "eval_repot" in told, told[-3000:]
