"""A served tiny model and, beside it, what `make monitoring` starts, scraping oftener."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.monitoring_tools import ROOT, Webhook, program, wait_for, webhook
from vlm_assets.cli.bootstrap import prepare_instance
from vlm_assets.cli.monitoring import monitoring_services, write_configuration
from vlm_assets.cli.settings import HOST, LOGS, MonitoringPorts
from vlm_assets.cli.supervisor import Supervisor
from vlm_serving.processes import claim_port

START_S, STOP_S = 180, 20


@dataclass(frozen=True)
class Stack:
    """Where everything answers."""

    home: Path
    captions: str
    prometheus: str
    alertmanager: str
    webhook: Webhook
    environment: dict[str, str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new Dagster home; skips where Prometheus is missing, before anything is started."""
    for name in ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"):
        program(name)
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def bundle_arguments() -> tuple[str, ...]:
    """What the server is started with; a module that deploys by itself overrides it."""
    return ()


@pytest.fixture(scope="module")
def stack(home: Path, bundle_arguments: tuple[str, ...]) -> Iterator[Stack]:
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    prepared = os.environ.get("DAGSTER_HOME")
    prepare_instance(home)
    os.environ.pop("DAGSTER_HOME")
    if prepared:
        os.environ["DAGSTER_HOME"] = prepared
    address_file = home / LOGS / "ray-serve-test.json"
    server = start_server(home, address_file, environment, bundle_arguments)
    try:
        address = wait_for("the server's address", lambda: read_address(server, address_file, home), START_S)
        port = int(address["http_url"].rsplit(":", 1)[1])
        serve = {"VLM_SERVE_ADDRESS": address["dashboard_url"], "RAY_AUTH_TOKEN_PATH": address["auth_token_file"]}
        ports = MonitoringPorts(*(claim_port(HOST, 0, "") for _ in range(4)), serve=port)
        with webhook() as received, Supervisor() as supervisor:
            services = monitoring_services(environment, hurried(write_configuration(home, ports, received.url)), ports)
            for service in services:
                supervisor.start(service)
            supervisor.wait_ready(services)
            yield Stack(
                home,
                address["http_url"],
                f"http://{HOST}:{ports.prometheus}",
                f"http://{HOST}:{ports.alertmanager}",
                received,
                {**environment, **serve, "RAY_AUTH_MODE": "token", "VLM_SERVE_URL": address["http_url"]},
            )
    finally:
        server.terminate()
        server.wait(STOP_S)


def hurried(folder: Path) -> Path:
    """The same configuration, but oftener and at once: a test cannot wait for minutes."""
    scraping = folder / "prometheus.yml"
    scraping.write_text(scraping.read_text().replace("_interval: 15s", "_interval: 10s"))
    alerting = folder / "alertmanager.yml"
    alerting.write_text(re.sub(r"group_wait: \d+s", "group_wait: 1s", alerting.read_text()))
    return folder


def start_server(
    home: Path, address_file: Path, environment: dict[str, str], arguments: tuple[str, ...]
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "vlm_serving", "serve", "--num-cpus", "2", "--port", "0", "--dashboard-port", "0"]
    (home / LOGS).mkdir(exist_ok=True)
    with (home / LOGS / "serve.log").open("wb") as output:
        return subprocess.Popen(
            [*command, "--address-file", str(address_file), *arguments],
            stdout=output, stderr=subprocess.STDOUT, cwd=home, env=environment,
        )  # fmt: skip


def read_address(server: "subprocess.Popen[bytes]", file: Path, home: Path) -> dict[str, str] | None:
    assert server.poll() is None, (home / LOGS / "serve.log").read_text()
    return json.loads(file.read_text()) if file.is_file() else None
