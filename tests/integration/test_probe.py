"""The containers' health probe against a real server, and what the doctor takes for Ray Serve."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.http_server import serving
from vlm_assets.doctor.ports import is_serve

pytestmark = pytest.mark.integration
PROBE = Path(__file__).parents[2] / "deploy" / "docker" / "probe.py"


class NoRouteYet(BaseHTTPRequestHandler):
    """As Ray's HAProxy answers before the first model."""

    def do_GET(self) -> None:
        health = self.path == "/-/healthz"
        body = b"Route table is not populated yet." if health else b"Path not found."
        self.send_response(503 if health else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(("also", "code"), [([], 1), (["404"], 0), (["503"], 1)])
def test_the_probe_takes_another_status_only_if_it_is_named(also: list[str], code: int) -> None:
    with serving(NoRouteYet) as url:
        command = [sys.executable, str(PROBE), f"{url}/healthz", *also]
        assert subprocess.run(command, capture_output=True, check=False).returncode == code


def test_a_server_without_a_model_is_known_for_what_it_is() -> None:
    with serving(NoRouteYet) as url:
        assert is_serve(url)
