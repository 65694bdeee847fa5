"""Every panel of every dashboard against the real Prometheus, beside a served model and a Dagster with runs.

The chain runs through to Ray Serve on a model so small that it learns nothing; then come captions, refusals,
corrections, a look for drift, a job that fails and the daemon. A query that finds nothing fails.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.monitoring.conftest import Stack
from tests.integration.test_chain import CONFIG
from tests.monitoring_tools import ROOT, query, wait_for
from tests.tiny import picture_bytes
from vlm_assets.cli.settings import LOGS
from vlm_assets.cli.supervisor import Service, Supervisor
from vlm_serving.request_log import read_request_log

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
WINDOW = "2m"  # what Grafana would put in place of $__rate_interval; here a scrape comes every ten seconds
WANTS_A_GPU = "vlm_gpu_memory_bytes"
PICTURES = 60
REFERENCE = 40  # the small chain validates on 45 pictures: enough for a verdict


@pytest.fixture(scope="module")
def lived_in(stack: Stack, tmp_path_factory: pytest.TempPathFactory):
    """The stack after a day's work in two minutes."""
    chain = {name: config for name, config in CONFIG["ops"].items() if name != "champion_report"}  # a job of its own
    run_job(stack, "retrain", {"ops": chain})
    ask(stack)
    log = stack.home / "request_log"
    wait_for("every request in the log", lambda: read_request_log(log).num_rows > PICTURES, 60)
    run_job(stack, "monitor", {"ops": {"drift_report": {"config": {"min_rows": REFERENCE}}}})
    run_job(stack, "rollback", {"ops": {"roll_back_champion": {"config": {"reason": "there is no earlier one"}}}}, 1)
    output = stack.home / LOGS / "daemon.log"
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "vlm_assets.definitions"]
    daemon = Service("daemon", command, stack.environment, output, lambda: True)
    with Supervisor() as supervisor:
        supervisor.start(daemon)
        ticked = 'vlm_dagster_automation_last_tick_ok{name="drift_sensor"}'
        wait_for("a tick of the sensor", lambda: supervisor.check() or query(stack.prometheus, ticked), 180)
        ask(stack)
        wait_for("captions by the second", lambda: query(stack.prometheus, "rate(vlm_pictures_total[2m]) > 0"), 60)
        yield stack


def run_job(stack: Stack, job: str, config: dict[str, Any], code: int = 0) -> None:
    file = stack.home / "config.yaml"
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "vlm_assets.definitions", "-j", job]
    done = subprocess.run(
        [*command, "-c", str(file)], capture_output=True, text=True, check=False, cwd=ROOT, env=stack.environment
    )
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-3000:]


def ask(stack: Stack) -> None:
    """Sixty pictures, one twice, one that is none, and a correction."""
    with httpx.Client(base_url=stack.captions, timeout=60, trust_env=False) as client:
        png = {"content-type": "image/png"}
        answers = [client.post("/v1/captions", content=picture_bytes(seed), headers=png) for seed in range(PICTURES)]
        again = client.post("/v1/captions", content=picture_bytes(0), headers=png)
        refused = client.post("/v1/captions", content=b"no picture", headers=png)
        caption = answers[0].json()["captions"][0]
        corrected = client.post("/v1/feedback", json={"id": caption["id"], "caption": "a coat"})
    assert {one.status_code for one in [*answers, again]} == {200}
    assert (refused.status_code, corrected.status_code) == (415, 200), corrected.text


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_no_panel_is_empty(lived_in: Stack, board: Path) -> None:
    asked = [
        (panel["title"], target["expr"].replace("$__rate_interval", WINDOW))
        for panel in json.loads(board.read_text())["panels"]
        for target in panel["targets"]
        if has_gpu() or WANTS_A_GPU not in target["expr"]
    ]

    def empty() -> list[tuple[str, str]]:
        return [(title, expression) for title, expression in asked if not filled(lived_in, expression)]

    deadline_s = time.monotonic() + 60
    while missing := empty():
        assert time.monotonic() < deadline_s, missing
        time.sleep(2)


def filled(stack: Stack, expression: str) -> bool:
    """Whether there is a value, and not only NaN: a share of nothing."""
    return any(sample["value"][1] != "NaN" for sample in query(stack.prometheus, expression))


def test_the_numbers_are_what_happened(lived_in: Stack) -> None:
    def value(expression: str) -> float:
        (sample,) = query(lived_in.prometheus, expression)
        return float(sample["value"][1])

    assert value('vlm_dagster_last_run_ok{dagster_job="retrain"}') == 1
    assert value('vlm_dagster_last_run_ok{dagster_job="rollback"}') == 0
    assert value("vlm_gate_passed") == 1
    assert value("vlm_drift_judged") == 1
    assert value('vlm_asset_metadata{asset="drift_report", name="n_traffic"}') >= PICTURES
    wait_for("all pictures counted", lambda: value("sum(vlm_pictures_total)") >= 2 * PICTURES, 60)
    assert value('vlm_asset_metadata{asset="eval_report", name="pictures"}') == 16


def test_dagsters_daemon_leaves_the_services_logs_where_they_are(lived_in: Stack) -> None:
    """What lies in a home's `logs` it sends off as telemetry and removes, though dagster.yaml turns telemetry off."""
    assert (lived_in.home / LOGS / "serve.log").is_file()
    assert (lived_in.home / LOGS / "daemon.log").is_file()
