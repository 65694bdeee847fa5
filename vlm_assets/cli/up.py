"""`make up`: everything a deployment on one machine needs, in one terminal."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from vlm_assets.cli.bootstrap import prepare_instance
from vlm_assets.cli.services import all_services, is_remote, shared_environment, tracking_uri
from vlm_assets.cli.settings import HOST, LOGS, Ports, open_home, quiet_environment, read_ports
from vlm_assets.cli.supervisor import Supervisor, heed_signals, tail

DEPLOY_TIMEOUT_S = 180


def up() -> int:
    """Start all services, print where they are, and stop them together at Ctrl-C (0) or when one dies (raises)."""
    heed_signals()
    ports, home = read_ports(os.environ), open_home(os.environ)
    environment = shared_environment(quiet_environment(), home, ports.serve, ports.ray_dashboard)
    services = all_services(environment, home, ports)
    print(f"starting {', '.join(service.name for service in services)} (logs: {home / LOGS})", flush=True)
    prepare_instance(home)
    with Supervisor() as supervisor:
        try:
            for service in services:
                supervisor.start(service)
            supervisor.wait_ready(services)
            print(f"captions: {_deploy_champion(environment, home)}", flush=True)
            print(_table(ports, tracking_uri(environment, home)), flush=True)
            supervisor.watch()
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
    print("stopped", flush=True)
    return 0


def _table(ports: Ports, mlflow_uri: str) -> str:
    mlflow = mlflow_uri if is_remote(mlflow_uri) else f"http://{HOST}:{ports.mlflow}"
    rows = (
        ("Dagster", f"http://{HOST}:{ports.ui}", "assets, runs, sensors"),
        ("MLflow", mlflow, "experiments and registered models"),
        ("captions", f"http://{HOST}:{ports.serve}", "POST /v1/captions, /docs, /readyz"),
        ("Ray", f"http://{HOST}:{ports.ray_dashboard}", "replicas and their logs"),
    )
    return "\n".join(f"  {name:<9} {url:<24} {use}" for name, url, use in rows) + "\nCtrl-C stops all of them."


def _deploy_champion(environment: Mapping[str, str], home: Path) -> str:
    """Put the champion back on Ray Serve, in a process of its own: this one stays light. Says what came of it.

    A champion that does not come up leaves the UI usable, which is where one looks for the cause.
    """
    log = home / LOGS / "deploy.log"
    command = [sys.executable, "-m", "vlm_assets", "deploy"]
    with log.open("wb") as sink:
        try:
            done = subprocess.run(
                command,
                env=dict(environment),
                stdout=subprocess.PIPE,
                stderr=sink,
                timeout=DEPLOY_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the champion was not up after {DEPLOY_TIMEOUT_S} s; see {log}, then materialize serving_app"
    if done.returncode != 0:
        return f"the champion could not be deployed; materialize serving_app. The end of {log}:\n{tail(log, 5)}"
    return done.stdout.decode(errors="replace").splitlines()[-1]
