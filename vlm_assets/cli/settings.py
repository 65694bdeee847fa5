"""Where the commands keep their state and which ports they use: from the environment, checked before any start."""

import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_assets.errors import ConfigError

HOST = "127.0.0.1"
# Not `logs`: what lies in that folder of its home Dagster's daemon and web server take for telemetry, post and remove,
# whatever dagster.yaml says of telemetry (dagster 1.13, _core/telemetry_upload.py).
LOGS = "service_logs"


@dataclass(frozen=True)
class PortSetting:
    """A port with the service that listens there and the variable that moves it."""

    service: str
    variable: str
    default: int


PORTS = (
    PortSetting("the Dagster UI", "VLM_PORT_UI", 3000),
    PortSetting("MLflow", "VLM_PORT_MLFLOW", 5000),
    PortSetting("Ray Serve", "VLM_PORT_SERVE", 8000),
    PortSetting("the Ray dashboard", "VLM_PORT_RAY_DASHBOARD", 8265),
)

MONITORING_PORTS = (
    PortSetting("Prometheus", "VLM_PORT_PROMETHEUS", 9090),
    PortSetting("Alertmanager", "VLM_PORT_ALERTMANAGER", 9093),
    PortSetting("Dagster's metrics", "VLM_PORT_METRICS", 9188),
    PortSetting("the node exporter", "VLM_PORT_NODE", 9100),
)


@dataclass(frozen=True)
class MonitoringPorts:
    """One free port for each of `make monitoring`'s, and where captions are served."""

    prometheus: int
    alertmanager: int
    metrics: int
    node: int
    serve: int


@dataclass(frozen=True)
class Ports:
    """One free port per service."""

    ui: int
    mlflow: int
    serve: int
    ray_dashboard: int


def read_ports(environment: Mapping[str, str]) -> Ports:
    """The ports of `make up`. Raises ConfigError with port, service and variable if one is wrong or taken."""
    return Ports(*_free_ports(PORTS, environment, "make up"))


def read_monitoring_ports(environment: Mapping[str, str]) -> MonitoringPorts:
    """The ports of `make monitoring`. Raises ConfigError as `read_ports` does; that of Ray Serve is not to be free."""
    serve = next(setting for setting in PORTS if setting.variable == "VLM_PORT_SERVE")
    own = _free_ports(MONITORING_PORTS, environment, "make monitoring")
    return MonitoringPorts(*own, serve=port_of(serve, environment))


def _free_ports(settings: Sequence[PortSetting], environment: Mapping[str, str], command: str) -> list[int]:
    chosen = [port_of(setting, environment) for setting in settings]
    for index, (setting, port) in enumerate(zip(settings, chosen, strict=True)):
        if port in chosen[:index]:
            other = settings[chosen.index(port)]
            raise ConfigError(f"{setting.variable} and {other.variable} are both {port}: give each its own port.")
        if not is_free(port):
            raise ConfigError(
                f"Port {port} for {setting.service} is in use. Stop what listens there, "
                f"or choose another one: {setting.variable}={port + 1} {command}"
            )
    return chosen


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # a port that only waits out old connections is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def port_of(setting: PortSetting, environment: Mapping[str, str]) -> int:
    """The port that the environment chooses; ConfigError with the variable if that is no port."""
    text = environment.get(setting.variable) or str(setting.default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ConfigError(f"{setting.variable} is {text!r}; the port of {setting.service} is a number from 1 to 65535.")
    return int(text)


def open_home(environment: Mapping[str, str]) -> Path:
    """DAGSTER_HOME or ./dagster_home, made if need be. Raises ConfigError if it cannot be written."""
    home = Path(environment.get("DAGSTER_HOME") or "dagster_home").absolute()
    try:
        (home / LOGS).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {home}: {error.strerror}. Give write permission, or set DAGSTER_HOME to another folder."
        ) from error
    return home


def quiet_environment() -> dict[str, str]:
    """This process's environment with the libraries' telemetry and banners off."""
    return {
        **os.environ,
        "DO_NOT_TRACK": "true",
        "DAGSTER_DISABLE_TELEMETRY": "true",  # its upload heeds this, and not what dagster.yaml says
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 GB of workers for a feature that is not used here
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
