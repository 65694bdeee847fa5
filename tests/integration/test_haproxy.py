"""HAProxy as Ray starts it: every address of its own on loopback, and no more for a replica than it can hold."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from vlm_serving.haproxy import SWITCH, WRAPPER, prepare_haproxy
from vlm_serving.intake import BODY_TIMEOUT_S
from vlm_serving.problems import problem_document
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
ONE_APPLICATION = """global
    tune.bufsize 1048576
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    option redispatch 1
    retry-on conn-failure empty-response
frontend http_frontend
    bind 127.0.0.1:{http}
    default_backend captioner
backend captioner
    http-reuse always
    balance first
{servers}
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


@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")
def test_rays_configuration_has_the_lines_that_are_mended() -> None:
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE as template

    assert template.startswith("global\n")
    assert "\n    http-reuse always\n" in template
    assert "\n    bind :{{ config.metrics_port }}\n" in template


class Replica(BaseHTTPRequestHandler):
    """Answers as Ray's replica does: in plain text, while `full`, that there is too much. Says how many it `holds`."""

    protocol_version = "HTTP/1.1"
    full = False
    text_of_503 = "text/plain"
    holds = 2
    asked = 0
    going_on = threading.Event()  # unset: what was asked stays unanswered

    def do_GET(self) -> None:
        self._answer(200, "application/json", b"{}")

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["content-length"]))
        self.going_on.wait(10)
        if self.full:
            self._answer(503, self.text_of_503, b"Request dropped")
        else:
            self._answer(200, "application/json", b"{}")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("x-vlm-holds", str(self.holds))
        if status == 503:
            self.send_header("retry-after", "7")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def behind_haproxy(folder: Path, before: Sequence[int] = (), body_s: int = 0) -> Iterator[tuple[str, type[Replica]]]:
    """The address of an HAProxy before a replica, and that replica. `before`: ports of others that are asked first;
    `body_s`: how long a body may take, instead of what our rules say."""
    environment: dict[str, str] = {}
    assert prepare_haproxy(folder / "ha", environment)
    if body_s:
        rules = WRAPPER.with_name("haproxy_rules.cfg").read_text()
        (folder / "haproxy_rules.cfg").write_text(rules.replace("time 60s", f"time {body_s}s"))
        environment["RAY_SERVE_HAPROXY_BINARY_PATH"] = shutil.copy(WRAPPER, folder)
    replica = type("Replica", (Replica,), {"going_on": threading.Event()})
    replica.going_on.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), replica)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port, config = free_port(), folder / "haproxy.cfg"
    ports = (*before, server.server_port)
    servers = "\n".join(f"    server replica{number} 127.0.0.1:{one}" for number, one in enumerate(ports))
    config.write_text(ONE_APPLICATION.format(http=port, servers=servers))
    command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config)]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        listening(process.pid, 1)
        yield f"http://127.0.0.1:{port}", replica
    finally:
        replica.going_on.set()
        process.kill()
        process.wait()
        server.shutdown()
        server.server_close()


def test_what_a_full_replica_refuses_is_a_problem_document(tmp_path: Path) -> None:
    with behind_haproxy(tmp_path) as (url, replica), httpx.Client(base_url=url) as client:
        replica.full = True
        answer = client.post("/v1/captions", content=b"x" * 300_000, headers={"x-request-id": "shop-1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == "shop-1"
    document = answer.json()
    expected = problem_document(503, "overloaded", document["detail"], "shop-1")
    assert document == expected
    assert "Try again in 2 s" in document["detail"]


def test_what_is_more_than_the_replica_holds_does_not_reach_it(tmp_path: Path) -> None:
    with behind_haproxy(tmp_path) as (url, replica), httpx.Client(base_url=url) as client, ThreadPoolExecutor() as pool:
        told = client.post("/v1/captions", content=b"x")
        assert "x-vlm-holds" not in told.headers
        replica.going_on.clear()
        held = [pool.submit(httpx.post, f"{url}/v1/captions", content=b"x") for _ in range(2)]
        wait_for(lambda: replica.asked == 3)
        third = client.post("/v1/captions", content=b"x" * 300_000)
        assert (third.status_code, third.json()["status"], third.headers["retry-after"]) == (503, 503, "2")
        assert len(third.json()["request_id"]) == 36 == len(third.headers["x-request-id"])
        assert client.get("/readyz").status_code == 200  # probes and pages are let through
        replica.going_on.set()
        assert [one.result().status_code for one in held] == [200, 200]
        assert client.post("/v1/captions", content=b"x").status_code == 200
        assert replica.asked == 4


def test_how_many_it_holds_may_change(tmp_path: Path) -> None:
    with behind_haproxy(tmp_path) as (url, replica), httpx.Client(base_url=url) as client, ThreadPoolExecutor() as pool:
        replica.holds = 1
        client.get("/v1/models")
        replica.going_on.clear()
        first = pool.submit(httpx.post, f"{url}/v1/captions", content=b"x")
        wait_for(lambda: replica.asked == 1)
        assert client.post("/v1/captions", content=b"x").status_code == 503
        replica.holds = 3
        client.get("/v1/models")
        others = [pool.submit(httpx.post, f"{url}/v1/captions", content=b"x") for _ in range(2)]
        wait_for(lambda: replica.asked == 3)
        replica.going_on.set()
        assert [one.result().status_code for one in (first, *others)] == [200] * 3


@contextmanager
def dying() -> Iterator[int]:
    """The port of a replica that dies as soon as a request begins to arrive."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            while True:
                try:
                    with listener.accept()[0] as connection:
                        connection.recv(10_000)
                except OSError:
                    return

        threading.Thread(target=work, daemon=True).start()
        yield listener.getsockname()[1]


def test_another_replica_gets_what_one_had_in_hand_when_it_died(tmp_path: Path) -> None:
    """A body that was still arriving cannot be sent again, unless HAProxy had waited for it."""

    def slowly() -> Iterator[bytes]:
        for _ in range(4):
            yield b"x" * 50_000
            time.sleep(0.1)

    with dying() as port, behind_haproxy(tmp_path, [port]) as (url, replica), httpx.Client(base_url=url) as client:
        length = {"content-length": "200000"}
        answers = [client.post("/v1/captions", content=slowly(), headers=length) for _ in range(3)]
    assert [one.status_code for one in answers] == [200, 200, 200]
    assert replica.asked == 3


def test_a_body_that_takes_too_long_costs_the_replica_nothing(tmp_path: Path) -> None:
    with behind_haproxy(tmp_path, body_s=1) as (url, replica):
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0), 10) as caller:
            caller.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 1000)
            head, _, body = caller.makefile("rb").read().partition(b"\r\n\r\n")
    document = json.loads(body)
    assert head.startswith(b"HTTP/1.1 408 ") and b"application/problem+json" in head
    assert document == problem_document(408, "body-too-slow", document["detail"], document["request_id"])
    assert f"longer than {BODY_TIMEOUT_S:g} s" in document["detail"]
    assert replica.asked == 0


def test_what_is_no_sign_of_too_much_passes_as_it_is(tmp_path: Path) -> None:
    with behind_haproxy(tmp_path) as (url, replica), httpx.Client(base_url=url) as client:
        replica.full, replica.text_of_503 = True, "application/problem+json"
        answers = [client.post("/v1/captions", content=b"x") for _ in range(3)]
    assert [(one.text, one.headers["retry-after"]) for one in answers] == [("Request dropped", "7")] * 3
    assert replica.asked == 3


@pytest.mark.parametrize("given", ['a"b', "x" * 65, "%[env(HOME)]", "a b"])
def test_a_request_id_that_is_none_is_not_repeated(tmp_path: Path, given: str) -> None:
    with behind_haproxy(tmp_path) as (url, replica), httpx.Client(base_url=url) as client:
        replica.full = True
        answer = client.post("/v1/captions", content=b"x", headers={"x-request-id": given})
    assert json.loads(answer.text)["request_id"] == answer.headers["x-request-id"] != given


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.01)


def listening(pid: int, count: int) -> set[tuple[str, int]]:
    """Where a process listens, once it listens on `count` addresses."""
    found: set[tuple[str, int]] = set()
    deadline_s = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline_s:
        time.sleep(0.02)
        connections = psutil.Process(pid).net_connections()
        found = {(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN}
    return found
