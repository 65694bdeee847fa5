"""Pictures by URL from real servers: what is allowed comes, and no trick reaches what must not be reached."""

import asyncio
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.serving import GOOD, make_client, make_service
from tests.tiny import tiny_bundle
from vlm_serving.errors import PictureTooLargeError, ServingError, UrlFailedError, UrlRefusedError
from vlm_serving.fetching import FetchRules, fetch

PICTURE = GOOD["jpeg"]
HOST = "pictures.example"
LOCAL = ("127.0.0.0/8",)
seen: list[tuple[str, str]] = []  # path and Host of each request that reached a server


class Handler(BaseHTTPRequestHandler):
    """Serves the picture, and every unpleasantness by its path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        seen.append((self.path, self.headers["host"]))
        path, target = self.path.partition("?")[0], self.path.partition("?to=")[2]
        if path == "/redirect":
            self.answer(302, b"", location=target)
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.flood()
        elif path == "/drip":
            self.send_response(200)
            self.send_header("content-length", "1000")
            self.end_headers()
            self.drip()
        elif path == "/declares":
            self.send_response(200)
            self.send_header("content-length", str(10**12))
            self.end_headers()
        elif path == "/packed":
            self.answer(200, b"\x1f\x8b", content_encoding="gzip")
        elif path == "/gone":
            self.answer(404, b"no")
        else:
            self.answer(200, PICTURE)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def flood(self) -> None:
        self.close_connection = True
        try:
            for _ in range(10_000):
                self.wfile.write(b"\0" * 65536)
        except OSError:
            return

    def drip(self) -> None:
        self.close_connection = True
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    yield from served(ThreadingHTTPServer(("127.0.0.1", 0), Handler))


def served(server: ThreadingHTTPServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def rules(port: int, **more: object) -> FetchRules:
    defaults: dict[str, object] = {
        "hosts": (HOST,), "plain_http": True, "ports": (port,), "private_networks": LOCAL, "timeout_s": 5.0,
        "max_bytes": 1_000_000,
    }  # fmt: skip
    return FetchRules(**{**defaults, **more})


def got(url: str, rules: FetchRules, *addresses: str) -> bytes:
    """Fetched with a resolver that gives these addresses, one list after the other, the last for good."""
    answers = [list(one.split(",")) for one in addresses or ("127.0.0.1",)]

    async def resolve(_: str, __: int) -> list[str]:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return asyncio.run(fetch(url, rules, resolve))


def refused(url: str, rules: FetchRules, *addresses: str) -> ServingError:
    with pytest.raises(ServingError) as caught:
        got(url, rules, *addresses)
    return caught.value


def test_a_picture_of_a_listed_host_comes_under_its_own_name(port: int) -> None:
    assert got(f"http://{HOST}:{port}/a.jpg?signature=s", rules(port)) == PICTURE
    assert seen[-1] == ("/a.jpg?signature=s", f"{HOST}:{port}")
    assert got(f"http://CDN.{HOST}:{port}/b.jpg", rules(port, hosts=(f"*.{HOST}",))) == PICTURE


def test_without_listed_hosts_nothing_is_fetched(port: int) -> None:
    error = refused(f"http://{HOST}:{port}/", rules(port, hosts=()))
    assert isinstance(error, UrlRefusedError)
    assert "Pictures by URL are off here" in str(error)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://other.example:PORT/a.jpg", "host 'other.example' is not among"),
        (f"http://{HOST}.evil.example:PORT/a.jpg", "is not among"),
        ("http://evil-pictures.example:PORT/", "is not among"),
        (f"http://{HOST}@127.0.0.1:PORT/", "user or password"),
        (f"http://user:secret@{HOST}:PORT/", "user or password"),
        (f"http://{HOST}:22/", "Port 22 is not among"),
        (f"ftp://{HOST}:PORT/", "only https and http URLs"),
        ("file:///etc/passwd", "only https and http URLs"),
        ("//pictures.example/a.jpg", "only https and http URLs"),
        (f"http://{HOST}:99999/", "is no URL"),
        ("http://[::1/", "is no URL"),
        ("http://127.1:PORT/", "is not among"),
        ("http://2130706433:PORT/", "is not among"),
    ],
)
def test_a_url_that_may_not_be_fetched_reaches_no_server(url: str, reason: str, port: int) -> None:
    before = len(seen)
    error = refused(url.replace("PORT", str(port)), rules(port))
    assert isinstance(error, UrlRefusedError)
    assert reason in str(error)
    assert "secret" not in str(error)
    assert len(seen) == before


@pytest.mark.parametrize(
    "addresses",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.9", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
        "::127.0.0.1", "::a9fe:a9fe", "fec0::1", "64:ff9b:1::7f00:1", "5f00::1", "3fff::1",
        "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe", "93.184.215.14,127.0.0.1",
    ],
)  # fmt: skip
def test_a_name_with_an_address_that_is_not_public_is_refused(addresses: str, port: int) -> None:
    before = len(seen)
    error = refused(f"http://{HOST}:{port}/", rules(port, private_networks=()), addresses)
    assert "has an address that is not public" in str(error)
    assert len(seen) == before


@pytest.mark.parametrize(
    ("host", "reason"),
    [("a" * 64, "no name of a host"), ("a.", "no name of a host"), ("ü", "no name of a host"), ("\ud800", "is no URL")],
)
def test_a_host_below_a_listed_one_that_no_resolver_takes_is_refused(host: str, reason: str, port: int) -> None:
    error = refused(f"http://{host}.{HOST}:{port}/", rules(port, hosts=(f"*.{HOST}",)))
    assert isinstance(error, UrlRefusedError)
    assert reason in str(error)


def test_the_address_that_was_checked_is_the_one_connected_to(port: int) -> None:
    """A second lookup would give another: the name is looked up once."""
    lookups: list[str] = []

    async def rebinding(host: str, _: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"] if len(lookups) == 1 else ["10.0.0.1"]

    assert asyncio.run(fetch(f"http://{HOST}:{port}/a.jpg", rules(port), rebinding)) == PICTURE
    assert lookups == [HOST]


def test_redirects_are_checked_as_the_first_address_was(port: int) -> None:
    base = f"http://{HOST}:{port}"
    assert got(f"{base}/redirect?to=/a.jpg", rules(port)) == PICTURE
    assert "is not among" in str(refused(f"{base}/redirect?to=http://other.example/", rules(port)))
    assert "only https" in str(refused(f"{base}/redirect?to=file:///etc/passwd", rules(port)))
    to_itself = refused(f"{base}/redirect?to={base}/redirect%3Fto=x", rules(port, private_networks=("127.0.0.1/32",)),
                        "127.0.0.1", "10.0.0.1")  # fmt: skip
    assert "not public" in str(to_itself)
    assert "redirects more than 0 times" in str(refused(f"{base}/redirect?to=/a", rules(port, max_redirects=0)))


@pytest.mark.parametrize("path", ["/endless", "/declares"])
def test_no_more_bytes_are_read_than_a_picture_may_have(path: str, port: int) -> None:
    error = refused(f"http://{HOST}:{port}{path}", rules(port, max_bytes=200_000))
    assert isinstance(error, PictureTooLargeError)
    assert "more than 200,000 bytes" in str(error)


def test_a_server_that_drips_is_left_in_time(port: int) -> None:
    started_s = time.monotonic()
    error = refused(f"http://{HOST}:{port}/drip", rules(port, timeout_s=0.4))
    assert isinstance(error, UrlFailedError)
    assert "took longer than 0.4 s" in str(error)
    assert time.monotonic() - started_s < 3


@pytest.mark.parametrize(("path", "reason"), [("/gone", "answered 404"), ("/packed", "packed bytes")])
def test_what_the_other_side_does_wrong_is_said(path: str, reason: str, port: int) -> None:
    error = refused(f"http://{HOST}:{port}{path}?signature=secret", rules(port))
    assert isinstance(error, UrlFailedError)
    assert reason in str(error)
    assert "secret" not in str(error)


def test_nobody_there_is_a_clear_error(port: int) -> None:
    assert "could not be fetched (ConnectError)" in str(refused(f"http://{HOST}:1/", rules(port, ports=(1,))))
    no_such = asyncio.run(failed(FetchRules(hosts=("nowhere.invalid",))))
    assert "is not known" in str(no_such)


async def failed(rules: FetchRules) -> ServingError:
    try:
        await fetch("https://nowhere.invalid/a.jpg", rules)
    except ServingError as error:
        return error
    raise AssertionError("it was fetched")


def test_tls_is_verified_against_the_name_though_an_address_is_connected_to(tmp_path: Path) -> None:
    """A certificate for the name that no authority signed: the handshake got as far as refusing it."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}",
         "-addext", f"subjectAltName=DNS:{HOST}", "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for port in served(server):
        before = len(seen)
        error = refused(f"https://{HOST}:{port}/a.jpg", rules(port, plain_http=False))
        assert "could not be fetched (ConnectError)" in str(error)
        assert names == [HOST]
        assert len(seen) == before


def test_both_routes_take_urls_of_listed_hosts(port: int, tmp_path: Path) -> None:
    settings = {"fetch_hosts": ["localhost"], "fetch_plain_http": True, "fetch_ports": [port]}
    service = make_service(
        tiny_bundle(tmp_path / "b"), **settings, fetch_private_networks=["127.0.0.0/8", "::1/128"], max_pictures=3
    )
    client, url = make_client(service), f"http://localhost:{port}/a.jpg"
    caption = client.post("/v1/captions", content=PICTURE, headers={"content-type": "image/jpeg"}).json()["captions"][0]
    by_url = client.post("/v1/captions", json={"images": [{"url": url}, {"url": url}]})
    assert [one["text"] for one in by_url.json()["captions"]] == [caption["text"]] * 2
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    chat = client.post(
        "/v1/chat/completions", json={"model": "captioner", "messages": [{"role": "user", "content": parts}]}
    )
    assert chat.json()["choices"][0]["message"]["content"] == caption["text"]
    refused = client.post("/v1/captions", json={"images": [{"url": url}, {"url": "http://169.254.169.254/latest"}]})
    assert refused.status_code == 422
    assert "images[1]: The host '169.254.169.254' is not among" in refused.json()["detail"]
    both = client.post("/v1/captions", json={"images": [{"url": url, "base64": "eA=="}]})
    assert "by base64 or by url, one of both" in both.json()["detail"]
