"""Ports and folders: every wrong setting gets one line that says what to change."""

from pathlib import Path

import pytest

from vlm_assets.cli import settings
from vlm_assets.cli.settings import LOGS, Ports, open_home, read_ports
from vlm_assets.errors import ConfigError


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Ports that are in use, as far as `is_free` can tell."""
    ports: set[int] = set()
    monkeypatch.setattr(settings, "is_free", lambda port: port not in ports)
    return ports


def test_defaults(taken):
    assert read_ports({}) == Ports(ui=3000, mlflow=5000, serve=8000, ray_dashboard=8265)


def test_a_variable_moves_its_port_only(taken):
    assert read_ports({"VLM_PORT_SERVE": "8123"}) == Ports(ui=3000, mlflow=5000, serve=8123, ray_dashboard=8265)


def test_a_port_in_use_names_port_service_and_variable(taken):
    taken.add(5000)
    with pytest.raises(ConfigError, match=r"^Port 5000 for MLflow is in use.*VLM_PORT_MLFLOW=5001 make up$"):
        read_ports({})


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "80.5"])
def test_no_port(taken, text):
    with pytest.raises(ConfigError, match=rf"^VLM_PORT_UI is '{text}'; the port of the Dagster UI is a number"):
        read_ports({"VLM_PORT_UI": text})


def test_the_same_port_twice(taken):
    with pytest.raises(ConfigError, match=r"^VLM_PORT_SERVE and VLM_PORT_UI are both 4000: give each its own port\.$"):
        read_ports({"VLM_PORT_UI": "4000", "VLM_PORT_SERVE": "4000"})


def test_home_is_made(tmp_path: Path):
    home = open_home({"DAGSTER_HOME": str(tmp_path / "a" / "home")})
    assert (home / LOGS).is_dir()
    assert home == tmp_path / "a" / "home"


def test_home_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^Cannot write to .*/file/home: Not a directory\. .*set DAGSTER_HOME"):
        open_home({"DAGSTER_HOME": str(tmp_path / "file" / "home")})
