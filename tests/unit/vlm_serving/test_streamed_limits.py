"""Limits hold while a body streams in: what is too much is refused before the rest of it is read."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving import make_service
from vlm_serving.request_log import RequestLog
from vlm_serving.web import create_web

PIECE = 10_000
PIECES = 1000
HEAD = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.png"\r\n\r\n'


class Sender:
    """A caller that goes on sending as long as it is read, and counts how often it was."""

    def __init__(self, first: bytes) -> None:
        self.first = first
        self.read = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        self.read += 1
        body = self.first if self.read == 1 else b"1" * PIECE
        return {"type": "http.request", "body": body, "more_body": self.read < PIECES}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    @property
    def problem(self) -> dict[str, Any]:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))


def post(
    bundle: Path, log: Path, path: str, kind: str, first: bytes, declared: int | None = None,
    sender: type[Sender] = Sender,
) -> Sender:  # fmt: skip
    service = make_service(bundle, RequestLog(log), max_body_bytes=100_000, max_picture_bytes=50_000)
    headers = [(b"content-type", kind.encode())]
    if declared is not None:
        headers.append((b"content-length", str(declared).encode()))
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": headers, "scheme": "http", "server": ("captioner", 80), "root_path": "",
    }  # fmt: skip
    caller = sender(first)
    asyncio.run(create_web(lambda: service)(scope, caller.receive, caller.send))
    service.close()
    return caller


@pytest.mark.parametrize(
    ("path", "kind", "first", "limit", "slug"),
    [
        ("/v1/captions", "image/png", b"", 50_000, "picture-too-large"),
        ("/v1/captions", "application/json", b'{"images": [{"base64": "', 100_000, "body-too-large"),
        ("/v1/captions", "multipart/form-data; boundary=x", HEAD, 100_000, "body-too-large"),
        ("/v1/chat/completions", "application/json", b'{"model": "', 100_000, "body-too-large"),
        ("/v1/feedback", "application/json", b'{"id": "', 64 * 1024, "body-too-large"),
    ],
)
@pytest.mark.parametrize("declared", [None, 10])  # no length, and a lie
def test_reading_stops_at_the_limit(
    bundle: Path, tmp_path: Path, path: str, kind: str, first: bytes, limit: int, slug: str, declared: int | None
) -> None:
    sender = post(bundle, tmp_path, path, kind, first, declared)
    assert (sender.problem["status"], sender.problem["error"]["code"]) == (413, slug)
    assert f"more than {limit:,} bytes" in sender.problem["detail"]
    assert sender.read <= limit // PIECE + 3


def test_a_declared_excess_is_refused_unread(bundle: Path, tmp_path: Path) -> None:
    sender = post(bundle, tmp_path, "/v1/captions", "image/png", b"", declared=50_001)
    assert sender.read == 0 and "50,001 bytes; the limit is 50,000" in sender.problem["detail"]


class Dripper(Sender):
    """A caller that sends a byte now and then."""

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(0.02)
        self.read += 1
        return {"type": "http.request", "body": b"1", "more_body": True}


def test_a_body_that_drips_does_not_hold_its_place(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_serving.intake.BODY_TIMEOUT_S", 0.2)
    sender = post(bundle, tmp_path, "/v1/captions", "image/png", b"", sender=Dripper)
    assert (sender.problem["status"], sender.problem["error"]["code"]) == (408, "body-too-slow")
    assert "took longer than 0.2 s" in sender.problem["detail"]
    assert 1 < sender.read < 20
