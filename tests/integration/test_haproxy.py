"""HAProxy as Ray starts it, with every address of its own on loopback."""

import os
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from vlm_serving.haproxy import SWITCH, prepare_haproxy
from vlm_serving.processes import free_port

pytestmark = pytest.mark.integration
CONFIG = """global
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind {host}:{http}
listen stats
  bind *:{stats}
"""


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("*", "0.0.0.0"), ("0.0.0.0", "0.0.0.0")])
def test_its_own_doors_are_on_loopback_and_the_services_where_it_was_told(
    tmp_path: Path, host: str, address: str
) -> None:
    environment: dict[str, str] = {}
    assert prepare_haproxy(tmp_path / "ha", environment)
    ports = {"metrics": free_port(), "http": free_port(), "stats": int(environment["RAY_SERVE_HAPROXY_STATS_PORT"])}
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(host=host, **ports))
    command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config)]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        assert listening(process.pid, len(ports)) == {
            (address if name == "http" else "127.0.0.1", port) for name, port in ports.items()
        }
    finally:
        process.kill()
        process.wait()


def test_nothing_in_the_temporary_directory_has_to_be_run(tmp_path: Path) -> None:
    """A container's is often mounted noexec."""
    environment: dict[str, str] = {}
    assert prepare_haproxy(tmp_path / "ha", environment)
    assert not Path(environment["RAY_SERVE_HAPROXY_BINARY_PATH"]).is_relative_to(tmp_path)
    assert not [path for path in (tmp_path / "ha").rglob("*") if os.access(path, os.X_OK) and path.is_file()]


def test_it_is_left_out_where_the_environment_says_so(tmp_path: Path) -> None:
    environment = {SWITCH: "0"}
    assert not prepare_haproxy(tmp_path / "ha", environment)
    assert environment == {SWITCH: "0"}


def test_settings_of_the_environment_stay(tmp_path: Path) -> None:
    environment = {"RAY_SERVE_HAPROXY_METRICS_PORT": "9101"}
    assert prepare_haproxy(tmp_path / "ha", environment)
    assert environment["RAY_SERVE_HAPROXY_METRICS_PORT"] == "9101"
    assert environment[SWITCH] == "1"


def listening(pid: int, count: int) -> set[tuple[str, int]]:
    """Where a process listens, once it listens on `count` addresses."""
    found: set[tuple[str, int]] = set()
    deadline_s = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline_s:
        time.sleep(0.02)
        connections = psutil.Process(pid).net_connections()
        found = {(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN}
    return found
