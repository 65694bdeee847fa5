"""Log lines: JSON in ECS names, one per request, and in none of them a key or a piece of a picture."""

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import BAD, GOOD, make_client, make_service, noisy_jpeg
from vlm_serving.ecs import EcsFormatter
from vlm_serving.telemetry import LOGGER

KEY = "vlm-0123456789-THE-SECRET-KEY-abcdefghijklmnopq"
JPEG = noisy_jpeg()
TEXT = base64.b64encode(JPEG).decode()
SECRETS = {"authorization": f"Bearer {KEY}", "x-api-key": KEY, "cookie": f"key={KEY}"}


class Lines(logging.Handler):
    """Keeps what would be written, of all loggers but the test's own client."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(EcsFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("httpx", "httpcore")):
            self.lines.append(self.format(record))

    def of(self, message: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.lines) if line["message"] == message]


@pytest.fixture
def log() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    before = root.level, LOGGER.level, LOGGER.propagate, LOGGER.handlers
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate, LOGGER.handlers = True, []
    yield handler
    root.removeHandler(handler)
    root.setLevel(before[0])
    LOGGER.setLevel(before[1])
    LOGGER.propagate, LOGGER.handlers = before[2:]


def test_a_log_line_is_one_json_object() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "failed", (), (ValueError, error, error.__traceback__))
    record.fields = {"request_id": "r1", "status": 500, "bundle": 7, "reason": ""}
    text = EcsFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["log.level"], line["message"]) == ("error", "failed")
    assert (line["http.request.id"], line["http.response.status_code"], line["labels.bundle"]) == ("r1", 500, "7")
    assert (line["error.type"], line["error.message"]) == ("ValueError", "two\nlines")
    assert line["error.stack_trace"].endswith("ValueError: two\nlines")
    assert line["@timestamp"].endswith("Z") and line["service.name"] == "vlm_serving" and line["service.version"]


def test_each_request_leaves_one_line(bundle: Path, log: Lines) -> None:
    client = make_client(make_service(bundle))
    client.post("/v1/captions", content=JPEG, headers={"content-type": "image/jpeg", "x-request-id": "a-1"})
    client.post("/v1/captions", content=b"no", headers={"content-type": "image/jpeg", "x-request-id": "a-2"})
    client.get("/healthz")
    good, bad = log.of("request")
    assert (good["http.request.id"], good["http.request.method"], good["url.path"]) == ("a-1", "POST", "/v1/captions")
    assert good["http.response.status_code"] == 200 and "error.type" not in good
    assert isinstance(good["event.duration"], int) and 10**5 < good["event.duration"] < 10**11  # nanoseconds
    assert (bad["http.request.id"], bad["http.response.status_code"]) == ("a-2", 415)
    assert bad["error.type"] == "unsupported-picture"


def test_a_refused_caller_is_logged_with_the_path_and_a_known_one_by_name(bundle: Path, log: Lines) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    client = make_client(make_service(bundle, api_keys={"shop": digest}))
    for headers in (SECRETS, {"authorization": "Bearer wrong"}):
        client.post("/v1/captions", content=JPEG, headers={**headers, "content-type": "image/jpeg"})
    known, stranger = log.of("request")
    assert (known["http.response.status_code"], known["user.name"]) == (200, "shop")
    assert (stranger["http.response.status_code"], stranger["url.path"]) == (401, "/v1/captions")
    assert "user.name" not in stranger and KEY not in "".join(log.lines)


def test_no_key_and_no_picture_is_in_any_line(bundle: Path, log: Lines) -> None:
    service = make_service(bundle, max_pictures=2)
    client = make_client(service)
    address, raw = "/v1/captions", {**SECRETS, "content-type": "image/jpeg"}
    for data in (JPEG, JPEG[:500], *GOOD.values(), *(bad[0] for bad in BAD.values())):
        client.post(address, content=data, headers=raw)
    client.post(address, content=JPEG, headers=raw, params={"key": KEY, "image": TEXT[:2000]})
    client.post(f"{address}/{KEY}", content=JPEG, headers=raw)
    client.post(address, content=JPEG, headers={**SECRETS, "content-type": TEXT[:200]})
    client.post(address, content=JPEG, headers={**raw, "x-request-timeout-s": KEY})
    client.post(address, content=JPEG, headers={**raw, "x-request-id": TEXT[:80]})
    client.post(address, files=[("files", (TEXT[:100], JPEG))] * 3, headers=SECRETS)
    client.post(address, files=[(TEXT[:60], (KEY, JPEG))], data={KEY: TEXT}, headers=SECRETS)
    for body in ({"images": [{"base64": TEXT}]}, {"images": TEXT}, {TEXT: KEY}, {"images": [{"base64": TEXT + "%"}]}):
        client.post(address, json=body, headers=SECRETS)
    client.post(address, content=f'{{"images": "{TEXT}', headers={**SECRETS, "content-type": "application/json"})
    for failing in (ValueError(f"cannot read {JPEG!r}"), KeyError(TEXT), RuntimeError(f"401 for {KEY}")):
        service.caption = raising(failing)  # type: ignore[method-assign]
        client.post(address, content=JPEG, headers=raw)
    assert len(log.of("request")) == len(GOOD) + len(BAD) + 17
    assert len(log.of("request failed")) == 3
    told = "\n".join(log.lines)
    pieces = [TEXT[at : at + 16] for at in range(0, len(TEXT) - 16, 8)]
    pieces += [json.dumps(repr(JPEG[at : at + 12])[2:-1])[1:-1] for at in range(0, len(JPEG) - 12, 6)]
    assert not [piece for piece in (KEY, *pieces) if piece in told]


def raising(error: Exception) -> Any:
    async def caption(*_: object, **__: object) -> None:
        raise error

    return caption
