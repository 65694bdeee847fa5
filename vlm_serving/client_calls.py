"""What the clients ask and what they make of the answers, without a connection: waiting and sending are theirs.

A call is a generator: it yields requests and pauses, and is sent what came of each; so the blocking and the async
client try, wait and give up by the same lines.
"""

import random
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import httpx

from vlm_serving.errors import CaptionRequestError

T = TypeVar("T")
Picture = bytes | Path

MAX_PICTURES = 32  # the server's default per request; longer lists are sent in pieces
MAX_REQUEST_BYTES = 48 * 1024 * 1024
COME_BACK = (429, 503, 504)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0


class Options(TypedDict, total=False):
    """How to caption, as POST /v1/captions takes it; /docs tells what each does. Left out: the model's own."""

    max_new_tokens: int
    min_new_tokens: int
    num_beams: int
    num_captions: int
    length_penalty: float
    no_repeat_ngram_size: int
    repetition_penalty: float
    prompt: str
    return_embedding: bool
    explain: bool
    model: str


@dataclass(frozen=True)
class WordResult:
    """A word, its probability, and where the model looked for it: a square grid over the picture, 0..255, by rows."""

    text: str
    confidence: float
    heat: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Alternative:
    """What else could be said."""

    text: str
    confidence: float
    finish_reason: str


@dataclass(frozen=True)
class CaptionResult:
    """One caption and which model gave it. `latency_ms` is the server's time for the request that held the picture."""

    text: str
    confidence: float
    token_count: int
    model_version: str
    request_id: str
    caption_id: str  # what `feedback` takes
    latency_ms: float
    finish_reason: str = "stop"  # stop: it is complete; length: it was cut off
    alternatives: tuple[Alternative, ...] = ()  # with num_captions above 1
    embedding: tuple[float, ...] = ()  # with return_embedding
    words: tuple[WordResult, ...] = ()  # with explain


@dataclass(frozen=True)
class Model:
    """A model behind the address; its version leads back to the bundle."""

    name: str
    version: str


@dataclass(frozen=True)
class Send:
    """A request to send. All of them may reach the server twice without harm."""

    method: str
    path: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Pause:
    """Time to let pass before the next step."""

    seconds: float


Came = httpx.Response | httpx.HTTPError | None
Steps = Generator[Send | Pause, Came, T]


def caption_steps(pictures: Sequence[Picture], options: Options, retries: int) -> Steps[list[CaptionResult]]:
    """Caption picture files or their bytes, in order, over as many requests as it takes."""
    results: list[CaptionResult] = []
    for files in _pieces(pictures):
        query = {name: value for name, value in options.items() if value is not None}
        arguments = {"files": [("files", file) for file in files], "params": query}
        results += _results((yield from _exchange(Send("POST", "/v1/captions", arguments), retries)))
    return results


def feedback_steps(caption_id: str, caption: str, rating: int | None, reason: str, retries: int) -> Steps[None]:
    """Say what a caption should have been."""
    said = {"rating": rating, "reason": reason or None}
    body = {"id": caption_id, "caption": caption} | {name: value for name, value in said.items() if value is not None}
    yield from _exchange(Send("POST", "/v1/feedback", {"json": body}), retries)


def models_steps(retries: int) -> Steps[list[Model]]:
    """Ask which models answer."""
    body = yield from _exchange(Send("GET", "/v1/models", {}), retries)
    return [Model(model["name"], model["version"]) for model in body["models"]]


def _exchange(send: Send, retries: int) -> Steps[dict[str, Any]]:
    """One request until it is answered, refused for good, or has been tried `retries` times more."""
    for attempt in range(retries + 1):
        came = yield send
        assert came is not None
        if isinstance(came, httpx.Response) and came.is_success:
            return came.json() if came.content else {}
        if attempt == retries or not _may_pass(came):
            raise _error(came)
        yield Pause(_pause_s(came, attempt))
    raise AssertionError("retries is negative")


def _may_pass(came: httpx.Response | httpx.HTTPError) -> bool:
    if isinstance(came, httpx.Response):
        return came.status_code in COME_BACK
    return isinstance(came, httpx.TransportError) and not isinstance(came, httpx.TimeoutException)


def _pause_s(came: httpx.Response | httpx.HTTPError, attempt: int) -> float:
    """What the server asks for, else twice as long each time; some chance in it, so that not all come back at once."""
    asked = _retry_after_s(came.headers.get("retry-after", "")) if isinstance(came, httpx.Response) else None
    if asked is not None:
        return min(asked * random.uniform(1, 1.1), LONGEST_PAUSE_S)
    return min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S) * random.uniform(0.5, 1)


def _retry_after_s(text: str) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3); None for anything else."""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _pieces(pictures: Sequence[Picture]) -> Iterator[list[tuple[str, bytes]]]:
    """Named pictures in requests of bounded count and size."""
    files: list[tuple[str, bytes]] = []
    size = 0
    for index, picture in enumerate(pictures):
        data = picture.read_bytes() if isinstance(picture, Path) else picture
        if files and (len(files) == MAX_PICTURES or size + len(data) > MAX_REQUEST_BYTES):
            yield files
            files, size = [], 0
        files.append((picture.name if isinstance(picture, Path) else f"picture-{index}", data))
        size += len(data)
    if files:
        yield files


def _results(body: dict[str, Any]) -> list[CaptionResult]:
    return [
        CaptionResult(
            text=caption["text"],
            confidence=caption["confidence"],
            token_count=caption["token_count"],
            model_version=body["model"]["version"],
            request_id=body["request_id"],
            caption_id=caption["id"],
            latency_ms=body["timings_ms"]["total"],
            finish_reason=caption.get("finish_reason", "stop"),
            alternatives=tuple(
                Alternative(other["text"], other["confidence"], other["finish_reason"])
                for other in caption.get("alternatives") or ()
            ),
            embedding=tuple(caption.get("embedding") or ()),
            words=tuple(
                WordResult(word["text"], word["confidence"], tuple(map(tuple, word["heat"])))
                for word in caption.get("words") or ()
            ),
        )
        for caption in body["captions"]
    ]


def _error(came: httpx.Response | httpx.HTTPError) -> CaptionRequestError:
    url = came.request.url
    server = f"{url.scheme}://{url.netloc.decode()}"
    if isinstance(came, httpx.HTTPError):
        return CaptionRequestError(f"{server} cannot be reached ({type(came).__name__}: {came}). Is the server up?")
    problem: dict[str, Any] = {}
    if "json" in came.headers.get("content-type", ""):
        problem = came.json()
    detail = problem.get("detail") or came.text[:300] or "no reason given"
    return CaptionRequestError(f"{server}{url.path} answered {came.status_code}: {detail}", came.status_code, problem)
