"""Ingress and models in replicas of their own, as deploy/serve.yaml has it, on a real Ray Serve under traffic."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.integration.test_serving import STOP_S, Server, Traffic, start, wait_for_address
from tests.tiny import picture_bytes, tiny_bundle
from vlm_serving.bundle import open_bundle
from vlm_serving.client import CaptionClient
from vlm_serving.deploying import APPLICATION, REST_PATH, auth_headers, deploy
from vlm_serving.errors import DeployFailedError
from vlm_serving.request_log import read_request_log

pytestmark = pytest.mark.integration
SERVE_YAML = Path(__file__).parents[2] / "deploy" / "serve.yaml"
PNG = picture_bytes(3)
ON_TWO_CORES = {  # twice, while replicas are replaced
    **{"num_cpus": 0.25, "ingress_num_cpus": 0.25, "min_replicas": 2, "max_replicas": 2},
    **{"health_check_period_s": 1, "max_surge_percent": 100, "max_wait_s": 0},  # 192 pictures wait, however slow it is
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bundles")
    return [tiny_bundle(folder / str(seed), seed=seed, image_size_px=32 + 16 * (seed % 2)) for seed in range(3)]


@pytest.fixture(scope="module")
def server(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started empty; then `serve deploy` with the config file of the repository, its model and its size replaced."""
    folder = tmp_path_factory.mktemp("split")
    process = start(folder, "--port", "0", "--dashboard-port", "0")
    try:
        address = wait_for_address(process, folder)
        token_file = Path(address["auth_token_file"])
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file)
        config = yaml.safe_load(SERVE_YAML.read_text())
        application = config["applications"][0]
        application["args"] |= ON_TWO_CORES | {"models": {"shoes": str(bundles[2])}, "cached_answers": 0}
        application["deployments"][0]["user_config"] = {"bundle": str(bundles[0])}
        for key in ("proxy_location", "http_options"):  # those of a Serve that runs already stay as they are
            del config[key]
        (folder / "serve.yaml").write_text(yaml.safe_dump(config))
        subprocess.run(
            [sys.executable, "-m", "ray.serve.scripts", "deploy", "serve.yaml", "-a", address["dashboard_url"]],
            cwd=folder, check=True, env={**os.environ, "RAY_AUTH_MODE": "token"}, timeout=120,
        )  # fmt: skip
        running = Server(process, request_log=folder / "log", temp_dir=token_file.parent, **address)
        wait_until(lambda: len(model_replicas(running)) == 2 and CaptionClient(running.http_url).ready(), 150)
        yield running
    finally:
        os.environ.pop("RAY_AUTH_TOKEN_PATH", None)
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)


def wait_until(condition, limit_s: float = 30) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come about"
        time.sleep(0.2)


def model_replicas(server: Server) -> dict[str, int]:
    """Ids and process ids of the model replicas that get traffic."""
    details = httpx.get(server.dashboard_url + REST_PATH, headers=auth_headers(), trust_env=False).json()
    deployments = details["applications"].get(APPLICATION, {}).get("deployments", {})
    replicas = deployments.get("Captioner", {}).get("replicas", [])
    return {one["replica_id"]: one["pid"] for one in replicas if one["state"] == "RUNNING"}


def with_traffic(server: Server, callers: int = 3):
    threads = [Traffic(server.http_url) for _ in range(callers)]
    for one in threads:
        one.start()
    time.sleep(0.5)
    return threads


def statuses(threads: list[Traffic]) -> set[int]:
    for one in threads:
        one.stop()
    return {status for one in threads for status in one.statuses}


def test_both_model_replicas_answer_through_one_ingress(server: Server, bundles: list[Path]) -> None:
    golden = json.loads((bundles[0] / "golden.json").read_text())[0]
    result = CaptionClient(server.http_url).caption([(bundles[0] / golden["picture"]).read_bytes()])[0]
    assert (result.text, result.model_version) == (golden["caption"], open_bundle(bundles[0]).version)
    heard: set[str] = set()
    for _ in range(40):
        heard.add(httpx.get(f"{server.http_url}/readyz").json()["replica"])
    assert heard == set(model_replicas(server))


def test_a_model_is_asked_for_by_name(server: Server, bundles: list[Path]) -> None:
    answer = httpx.post(f"{server.http_url}/v1/captions?model=shoes", files=[("files", PNG)], timeout=60)
    assert answer.json()["model"] == {"name": "shoes", "version": open_bundle(bundles[2]).version}
    unknown = httpx.post(f"{server.http_url}/v1/captions?model=cars", files=[("files", PNG)])
    assert (unknown.status_code, unknown.json()["title"]) == (404, "There is no model of this name")
    assert "known are: captioner, shoes" in unknown.json()["detail"]


def test_a_model_of_another_size_reaches_all_replicas_under_traffic(server: Server, bundles: list[Path]) -> None:
    before, new = set(model_replicas(server)), open_bundle(bundles[1]).version
    traffic = with_traffic(server)
    deploy(server.dashboard_url, bundles[1], new, timeout_s=90)
    time.sleep(0.5)
    assert statuses(traffic) == {200}
    assert {one.versions[-1] for one in traffic} == {new}
    assert set(model_replicas(server)) == before  # the same processes


def test_a_bundle_that_is_refused_leaves_the_one_before(server: Server, bundles: list[Path], tmp_path: Path) -> None:
    serving = CaptionClient(server.http_url).model_version()
    bad = shutil.copytree(bundles[0], tmp_path / "bad")
    (bad / "tokenizer.json").write_text("{}")
    traffic = with_traffic(server, 1)
    with pytest.raises(DeployFailedError, match=r"tokenizer\.json in the bundle .* was altered.*\n.*put back"):
        deploy(server.dashboard_url, bad, open_bundle(bundles[0]).version, timeout_s=90)
    assert statuses(traffic) == {200} and set(traffic[0].versions) == {serving}


def test_a_killed_model_replica_costs_no_request(server: Server) -> None:
    replicas = model_replicas(server)
    traffic = with_traffic(server)
    psutil.Process(next(iter(replicas.values()))).kill()
    wait_until(lambda: len(model_replicas(server)) == 2 and set(model_replicas(server)) != set(replicas), 60)
    assert statuses(traffic) == {200}


@contextmanager
def sent(server: Server, request_id: str) -> Iterator[socket.socket]:
    """A connection on which one picture has been sent; it is closed at the end, answered or not."""
    request = httpx.Request("POST", f"{server.http_url}/v1/captions", files=[("files", PNG)])
    body = request.read()
    lines = (
        "POST /v1/captions HTTP/1.1", "host: captioner", f"x-request-id: {request_id}",
        f"content-type: {request.headers['content-type']}", f"content-length: {len(body)}", "", "",
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", int(server.http_url.rsplit(":", 1)[1]))) as connection:
        connection.sendall("\r\n".join(lines).encode() + body)
        yield connection


def test_a_closed_connection_takes_its_pictures_along(server: Server) -> None:
    """Two requests keep both replicas busy; the third's client leaves before its turn: the log never hears of it."""
    large = [("files", picture_bytes(seed)) for seed in range(32)]
    slow = {"params": {"num_beams": 5, "max_new_tokens": 30}, "timeout": 60}

    def busy(name: str) -> None:
        httpx.post(f"{server.http_url}/v1/captions", files=large, headers={"x-request-id": name}, **slow)

    threads = [threading.Thread(target=busy, args=(f"busy-{number}",)) for number in range(6)]
    for one in threads:
        one.start()
    time.sleep(0.15)
    with sent(server, "leaver"):
        time.sleep(0.05)
    for one in threads:
        one.join()
    last = CaptionClient(server.http_url).caption([PNG])[0].caption_id
    rows: set[str] = set()

    def logged() -> bool:
        rows.update(read_request_log(server.request_log)["request_id"].to_pylist())
        return last in rows

    with sent(server, "stayer") as connection:
        assert b" 200 " in connection.recv(100)
    wait_until(lambda: logged() and "stayer" in rows)
    assert "busy-5/31" in rows and "leaver" not in rows


def test_changed_settings_replace_the_replicas_without_losing_a_request(server: Server, bundles: list[Path]) -> None:
    before, options = set(model_replicas(server)), {**ON_TWO_CORES, "max_batch_size": 4}
    traffic = with_traffic(server, 1)
    deploy(server.dashboard_url, bundles[1], open_bundle(bundles[1]).version, options=options, timeout_s=120)
    time.sleep(0.5)
    assert statuses(traffic) == {200}
    assert not before & set(model_replicas(server))


def test_what_is_in_work_when_it_is_told_to_stop_is_answered(server: Server) -> None:
    """The last test of the module: it ends the server that the others used."""
    answers: list[int] = []
    large = [("files", picture_bytes(seed)) for seed in range(32)]

    def ask() -> None:
        answer = httpx.post(f"{server.http_url}/v1/captions?num_beams=5", files=large, timeout=60)
        answers.append(answer.status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    time.sleep(0.3)
    server.process.terminate()
    for one in threads:
        one.join()
    assert answers == [200] * 4
    assert server.process.wait(STOP_S) == 0
