"""A real Ray Serve: started once by its command, asked over HTTP, updated under traffic, stopped without a trace."""

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from tests.load.http_client import Connections
from tests.serving import BAD, noisy_jpeg
from tests.tiny import picture_bytes, tiny_bundle
from vlm_serving.bundle import open_bundle
from vlm_serving.client import CaptionClient
from vlm_serving.config import ServingConfig
from vlm_serving.deploying import APPLICATION, REST_PATH, Rollout, deploy
from vlm_serving.errors import DeployFailedError
from vlm_serving.request_log import read_request_log

pytestmark = pytest.mark.integration
START_S, STOP_S = 120, 20
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PNG = picture_bytes(3)
ECHO = {"name": "other", "route_prefix": "/other", "import_path": "vlm_serving.app:build", "args": {"num_cpus": 0.1}}


@dataclass
class Server:
    """The running server and what it announced."""

    process: "subprocess.Popen[str]"
    http_url: str
    dashboard_url: str
    pid: int
    auth_token_file: str
    request_log: Path
    temp_dir: Path


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [tiny_bundle(folder / str(seed), seed=seed, image_size_px=32 + 16 * (seed % 2)) for seed in range(3)]


@pytest.fixture(scope="module")
def server(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    process = start(folder, "--bundle", str(bundles[0]), "--port", "0", "--dashboard-port", "0")
    address = wait_for_address(process, folder)
    token_file = Path(address["auth_token_file"])
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file)
    try:
        yield Server(process, request_log=folder / "log", temp_dir=token_file.parent, **address)
    finally:
        os.environ.pop("RAY_AUTH_TOKEN_PATH")
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "vlm_serving", "serve", "--num-cpus", "2", "--request-log", str(folder / "log")]
    environment = {**os.environ, "DAGSTER_HOME": str(folder)}
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            [*command, "--address-file", str(folder / "address.json"), *arguments],
            stdout=output, stderr=subprocess.STDOUT, text=True, cwd=folder, env=environment,
        )  # fmt: skip


def wait_for_address(process: "subprocess.Popen[str]", folder: Path) -> dict[str, str]:
    deadline_s = time.monotonic() + START_S
    while not (folder / "address.json").is_file():
        assert process.poll() is None, (folder / "output").read_text()
        assert time.monotonic() < deadline_s, (folder / "output").read_text()
        time.sleep(0.1)
    return json.loads((folder / "address.json").read_text())


class Traffic(threading.Thread):
    """Asks without a pause until stopped; keeps every status and version that came back."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.statuses: list[int] = []
        self.versions: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            while not self.stopping.is_set():
                try:
                    answer = client.post("/v1/captions", files=[("files", PNG)])
                except httpx.HTTPError:
                    self.statuses.append(0)
                    continue
                self.statuses.append(answer.status_code)
                self.versions.append(answer.headers.get("x-model-version", ""))

    def stop(self) -> None:
        self.stopping.set()
        self.join(60)


def version_at(server: Server) -> str:
    return CaptionClient(server.http_url).model_version()


def test_it_is_ready_and_says_which_model_serves(server: Server, bundles: list[Path]) -> None:
    assert httpx.get(f"{server.http_url}/readyz").json()["ready"] is True
    assert version_at(server) == open_bundle(bundles[0]).version
    assert server.pid == server.process.pid
    assert Path(server.auth_token_file).stat().st_mode & 0o777 == 0o600


def test_a_burst_is_answered_as_far_as_there_is_room(server: Server) -> None:
    """Ray's own count takes a burst for a queue, and refused some of it on an idle server."""

    async def burst(size: int) -> list[int]:
        async with Connections(server.http_url) as connections:
            asked = (connections.post_file("/v1/captions", "files", noisy_jpeg()) for _ in range(size))
            return [answer.status for answer in await asyncio.gather(*asked)]

    room = ServingConfig.model_validate({}).front_requests
    for _ in range(20):  # how quick the model is, is known then: max_wait_s allows for that many
        assert asyncio.run(burst(2)) == [200, 200]
    assert [set(asyncio.run(burst(room))) for _ in range(5)] == [{200}] * 5
    statuses = Counter(asyncio.run(burst(3 * room)))
    assert set(statuses) == {200, 503} and statuses[200] >= room


def test_every_way_in_gives_the_golden_caption(server: Server, bundles: list[Path]) -> None:
    golden = json.loads((bundles[0] / "golden.json").read_text())[0]
    data = (bundles[0] / golden["picture"]).read_bytes()
    url = f"{server.http_url}/v1/captions"
    answers = [
        httpx.post(url, files=[("files", data)]),
        httpx.post(url, json={"images": [{"base64": base64.b64encode(data).decode()}]}),
        httpx.post(url, content=data, headers={"content-type": "image/png"}),
    ]
    assert [answer.json()["captions"][0]["text"] for answer in answers] == [golden["caption"]] * 3
    for answer in answers:
        assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]


def test_the_pages_example_for_openais_client_runs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shoe.jpg").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    exec(PYTHON_BLOCK.search(PAGE)[1].replace("http://127.0.0.1:8000", server.http_url))  # type: ignore[index]
    own = httpx.post(f"{server.http_url}/v1/captions?num_beams=3", files=[("files", PNG)]).json()["captions"][0]
    assert capsys.readouterr().out == own["text"] + "\n"


def test_a_stream_comes_through_the_proxy(server: Server) -> None:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    asked = {"model": "captioner", "messages": [message], "stream": True}
    with httpx.stream("POST", f"{server.http_url}/v1/chat/completions", json=asked) as answer:
        lines = [line for line in answer.iter_lines() if line]
    said = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines[:-1]]
    own = httpx.post(f"{server.http_url}/v1/captions", files=[("files", PNG)]).json()["captions"][0]
    assert "".join(delta.get("content", "") for delta in said) == own["text"] and lines[-1] == "data: [DONE]"


def test_the_replicas_numbers_come_through_the_proxy(server: Server) -> None:
    httpx.get(f"{server.http_url}/nowhere")
    answer = httpx.get(f"{server.http_url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'vlm_requests_total{status="404"} 1.0' in answer.text.splitlines()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_the_callers_problem(server: Server, name: str) -> None:
    data, status, slug, _ = BAD[name]
    answer = httpx.post(f"{server.http_url}/v1/captions", files=[("files", PNG), ("files", data)])
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[1]) == (status, slug)
    assert answer.json()["picture_index"] == 1


def test_a_huge_body_is_refused_through_the_proxy(server: Server) -> None:
    pieces = (b"1" * 2**20 for _ in range(70))
    answer = httpx.post(
        f"{server.http_url}/v1/captions", content=pieces, headers={"content-type": "application/json"}, timeout=60
    )
    assert (answer.status_code, answer.json()["type"].rsplit(":", 1)[1]) == (413, "body-too-large")


def test_simultaneous_requests_share_passes_of_the_model_and_keep_their_captions(server: Server) -> None:
    pictures = [picture_bytes(seed) for seed in range(24)]
    client = CaptionClient(server.http_url)
    alone = [client.caption([picture])[0].text for picture in pictures]
    together = [result.text for result in client.caption(pictures)]
    assert together == alone


def test_no_door_of_haproxy_is_open_to_other_machines(server: Server) -> None:
    proxies = [one for one in psutil.Process(server.pid).children(recursive=True) if one.name() == "haproxy"]
    assert proxies
    doors = [one.laddr for proxy in proxies for one in proxy.net_connections() if one.status == psutil.CONN_LISTEN]
    assert doors and {door.ip for door in doors} == {"127.0.0.1"}


def test_the_dashboard_wants_the_token(server: Server) -> None:
    assert httpx.get(server.dashboard_url + REST_PATH).status_code == 401
    wrong = httpx.get(server.dashboard_url + REST_PATH, headers={"Authorization": "Bearer " + "0" * 64})
    assert wrong.status_code == 403


def test_a_new_bundle_takes_over_under_traffic_without_one_failure(server: Server, bundles: list[Path]) -> None:
    old, new = version_at(server), open_bundle(bundles[1]).version
    replica = httpx.get(f"{server.http_url}/readyz").json()["replica"]
    callers = [Traffic(server.http_url) for _ in range(3)]
    for caller in callers:
        caller.start()
    time.sleep(1)
    deploy(server.dashboard_url, bundles[1], new, timeout_s=90)
    first_after = CaptionClient(server.http_url).caption([PNG])[0].model_version
    time.sleep(1)
    for caller in callers:
        caller.stop()
    assert first_after == new
    for caller in callers:
        assert set(caller.statuses) == {200}
        assert caller.versions[0] == old and caller.versions[-1] == new
        assert caller.versions == sorted(caller.versions, key=lambda version: version == new)  # never back
    assert httpx.get(f"{server.http_url}/readyz").json()["replica"] == replica  # the same process


def test_a_bad_bundle_is_refused_with_the_replicas_words_and_the_old_one_serves_on(
    server: Server, bundles: list[Path], tmp_path: Path
) -> None:
    serving = version_at(server)
    bad = shutil.copytree(bundles[2], tmp_path / "bad")
    (bad / "tokenizer.json").write_text("{}")
    traffic = Traffic(server.http_url)
    traffic.start()
    with pytest.raises(DeployFailedError, match=r"tokenizer\.json in the bundle .* was altered.*\n.*put back"):
        deploy(server.dashboard_url, bad, open_bundle(bundles[2]).version, timeout_s=90)
    traffic.stop()
    assert set(traffic.statuses) == {200} and set(traffic.versions) == {serving}
    deadline_s = time.monotonic() + 20  # the old configuration comes back, and with it a clean state
    while (state := httpx.get(f"{server.http_url}/readyz").json())["error"] and time.monotonic() < deadline_s:
        time.sleep(0.2)
    assert (state["error"], state["model"]["version"]) == ("", serving)


def test_deploying_leaves_other_applications_alone(server: Server, bundles: list[Path]) -> None:
    rollout = Rollout(server.dashboard_url, "", 30, None)
    with rollout.client:
        details = rollout._details()
        ours = details["applications"][APPLICATION]["deployed_app_config"]
        details["applications"]["other"] = {"deployed_app_config": ECHO}
        rollout._put(details, ours)
        deploy(server.dashboard_url, bundles[2], open_bundle(bundles[2]).version, timeout_s=90)
        assert set(rollout._details()["applications"]) == {APPLICATION, "other"}


def test_requests_are_in_the_log(server: Server) -> None:
    result = CaptionClient(server.http_url).caption([noisy_jpeg()])[0]
    deadline_s = time.monotonic() + 20
    rows: dict[str, dict[str, object]] = {}
    while result.caption_id not in rows and time.monotonic() < deadline_s:
        rows = {row["request_id"]: row for row in read_request_log(server.request_log).to_pylist()}
        time.sleep(0.2)
    row = rows[result.caption_id]
    assert (row["caption"], row["model_version"]) == (result.text, result.model_version)
    assert (row["width_px"], row["height_px"], len(row["embedding"])) == (200, 160, 32)  # type: ignore[arg-type]


def test_a_taken_port_is_one_clear_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    port = int(server.http_url.rsplit(":", 1)[1])
    process = start(tmp_path, "--port", str(port), "--dashboard-port", "0")
    assert process.wait(30) == 2
    output = (tmp_path / "output").read_text()
    assert f"error: Cannot listen on 127.0.0.1:{port} (Address already in use)" in output and "--port 0" in output
    assert len(output.splitlines()) == 1
    assert not (tmp_path / "address.json").exists()


def test_nobody_at_the_dashboard_is_one_clear_error(bundles: list[Path]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(DeployFailedError, match=f"No Ray dashboard answers at {url} .*VLM_SERVE_ADDRESS"):
        deploy(url, bundles[0], "v", timeout_s=0.5)


def test_it_stops_within_its_bounds_and_leaves_no_process_no_port_and_no_file(server: Server) -> None:
    """The last test of the module: it ends the server that the others used."""
    below = psutil.Process(server.pid).children(recursive=True)
    assert any(process.name() == "raylet" for process in below)
    last = CaptionClient(server.http_url).caption([PNG])[0]
    started_s = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(STOP_S) == 0
    assert time.monotonic() - started_s < 13 * slowness()  # 6 s to drain, 3 s for Ray, and the end of the process
    alive = [process for process in below if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert alive == []
    assert not server.temp_dir.exists()
    assert not (server.request_log.parent / "address.json").exists()
    assert last.caption_id in read_request_log(server.request_log)["request_id"].to_pylist()  # drained, not cut off
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.http_url.rsplit(":", 1)[1]))) != 0


def slowness() -> float:
    """How much longer a machine under load may take."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
