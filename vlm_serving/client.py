"""A small typed client: `CaptionClient("http://127.0.0.1:8000").caption([Path("shoe.jpg")])`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from vlm_serving.errors import CaptionRequestError

MAX_PICTURES = 32  # the server's default per request; longer lists are sent in pieces
MAX_REQUEST_BYTES = 48 * 1024 * 1024


@dataclass(frozen=True)
class CaptionResult:
    """One caption and which model gave it. `latency_ms` is the server's time for the request that held the picture."""

    text: str
    confidence: float
    token_count: int
    model_version: str
    request_id: str
    caption_id: str
    latency_ms: float


class CaptionClient:
    """Captions pictures over HTTP. Reuses its connection; close it, or use it as a context manager."""

    def __init__(
        self, base_url: str, *, timeout_s: float = 120.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.base_url = base_url.rstrip("/")
        # no proxies from the environment: a captioner on loopback must not be asked for through one
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout_s, transport=transport, trust_env=False)

    def caption(
        self, pictures: Sequence[bytes | Path], *, max_new_tokens: int | None = None, num_beams: int | None = None
    ) -> list[CaptionResult]:
        """Caption picture files or their bytes, in order. Raises CaptionRequestError, OSError for unreadable files."""
        options = {"max_new_tokens": max_new_tokens, "num_beams": num_beams}
        query = {name: value for name, value in options.items() if value is not None}
        results: list[CaptionResult] = []
        for files in _pieces(pictures):
            body = self._send("POST", "/v1/captions", files=[("files", file) for file in files], params=query)
            results += _results(body)
        return results

    def ready(self) -> bool:
        """Whether captions can be had now; False also if nothing answers at the address."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def model_version(self) -> str:
        """Version of the model that answers. Raises CaptionRequestError if none does yet."""
        return self._send("GET", "/v1/models")["models"][0]["version"]

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> "CaptionClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}"
            raise CaptionRequestError(f"{self.base_url} cannot be reached ({reason}). Is the server up?") from error
        if answer.status_code != 200:
            raise _refusal(answer)
        return answer.json()


def _pieces(pictures: Sequence[bytes | Path]) -> Iterator[list[tuple[str, bytes]]]:
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
        )
        for caption in body["captions"]
    ]


def _refusal(answer: httpx.Response) -> CaptionRequestError:
    problem: dict[str, Any] = {}
    if "json" in answer.headers.get("content-type", ""):
        problem = answer.json()
    detail = problem.get("detail") or answer.text[:300] or "no reason given"
    return CaptionRequestError(f"{answer.url} answered {answer.status_code}: {detail}", answer.status_code, problem)
