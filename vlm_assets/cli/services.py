"""The servers of one machine: how each is started, and how to see that it is ready."""

import json
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from vlm_assets.cli.settings import HOST, LOGS, Ports
from vlm_assets.cli.supervisor import Service
from vlm_assets.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[2]
LOG_FORMAT_VARIABLE = "VLM_LOG_FORMAT"
# so that there is something to convert: Dagster's own JSON, and what the replicas log
ECS_OPTIONS = {"Dagster": ["--log-format", "json"], "Ray Serve": ["--worker-logs"]}


def shared_environment(
    environment: Mapping[str, str], home: Path, serve_port: int, dashboard_port: int
) -> dict[str, str]:
    """What every child and every Dagster run must agree on: the home, where Ray Serve is, and the token it asks for."""
    return {
        **environment,
        "DAGSTER_HOME": str(home),
        "VLM_SERVE_ADDRESS": f"http://{HOST}:{dashboard_port}",
        "VLM_SERVE_URL": f"http://{HOST}:{serve_port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def dagster(environment: Mapping[str, str], home: Path, port: int) -> Service:
    """Web server and daemon."""
    workspace = PROJECT / "workspace.yaml"
    if not workspace.is_file():
        raise ConfigError(f"{workspace} is missing: run this from a clone of the project, installed with `make setup`.")
    command = [*_module("dagster"), "dev", "-w", str(workspace), "-h", HOST, "-p", str(port)]
    return Service("Dagster", command, environment, home / LOGS / "dagster.log", answers(port, "/server_info"))


def mlflow(environment: Mapping[str, str], home: Path, port: int) -> Service:
    """MLflow's pages over the database that runs write to themselves."""
    command = [
        *_module("mlflow"),
        *("server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", tracking_uri(environment, home)),
        *("--default-artifact-root", (home / "mlartifacts").as_uri(), "--no-serve-artifacts"),
    ]
    return Service("MLflow", command, environment, home / LOGS / "mlflow.log", answers(port, "/health"))


def ray_serve(environment: Mapping[str, str], home: Path, serve_port: int, dashboard_port: int) -> Service:
    """A standing Ray with Serve's HTTP proxy and no application yet; `serving_app` deploys to it."""
    address_file = home / LOGS / f"ray-serve-{serve_port}.json"
    address_file.unlink(missing_ok=True)
    command = [
        *_module("vlm_serving"),
        *("serve", "--port", str(serve_port), "--dashboard-port", str(dashboard_port)),
        *("--address-file", str(address_file)),
    ]
    return Service("Ray Serve", command, environment, home / LOGS / "ray-serve.log", lambda: _is_json(address_file))


def all_services(environment: Mapping[str, str], home: Path, ports: Ports) -> list[Service]:
    """Ray Serve, MLflow and Dagster, in starting order; no MLflow of our own if a remote one is set."""
    own_mlflow = [] if is_remote(tracking_uri(environment, home)) else [mlflow(environment, home, ports.mlflow)]
    services = [
        ray_serve(environment, home, ports.serve, ports.ray_dashboard),
        *own_mlflow,
        dagster(environment, home, ports.ui),
    ]
    return [as_ecs(service) for service in services] if wants_ecs(environment) else services


def wants_ecs(environment: Mapping[str, str]) -> bool:
    """Whether VLM_LOG_FORMAT asks for ECS lines. ConfigError for anything but `ecs`, `text` and nothing."""
    chosen = environment.get(LOG_FORMAT_VARIABLE) or "text"
    if chosen not in ("ecs", "text"):
        raise ConfigError(f"{LOG_FORMAT_VARIABLE} is {chosen!r}; it takes ecs (JSON for log stores) or text.")
    return chosen == "ecs"


def as_ecs(service: Service) -> Service:
    """The same service, its log as ECS lines (docs/monitoring.md)."""
    name = service.name.lower().replace(" ", "-")
    more = ECS_OPTIONS.get(service.name, [])
    return replace(service, command=[*_module("vlm_assets"), "ecs", name, *service.command, *more])


def tracking_uri(environment: Mapping[str, str], home: Path) -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, or a database in the home."""
    return environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"


def is_remote(uri: str) -> bool:
    """Whether an MLflow server answers at this address already."""
    return uri.startswith(("http://", "https://", "databricks"))


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def answers(port: int, path: str) -> Callable[[], bool]:
    """Whether this port of loopback answers `path` with 200, to be asked again and again."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    return ready


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return True
