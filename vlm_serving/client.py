"""A small typed client: `CaptionClient("http://127.0.0.1:8000").caption([Path("shoe.jpg")])`, and the same with await.

A server that is busy, restarting or not there yet is asked again, after the time that it names; what it refuses for
good, or is still not had after `retries` more tries, is a CaptionRequestError with its problem document.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar, Unpack

import httpx

from vlm_serving.client_calls import (
    Came,
    CaptionResult,
    Model,
    Options,
    Pause,
    Picture,
    Send,
    Steps,
    caption_steps,
    feedback_steps,
    models_steps,
)
from vlm_serving.errors import CaptionRequestError

T = TypeVar("T")
TIMEOUT_S = 120.0
RETRIES = 4


def _settings(base_url: str, api_key: str, timeout_s: float, transport: Any) -> dict[str, Any]:
    """Of either httpx client. No proxies from the environment: loopback must not be asked for through one."""
    key = api_key or os.environ.get("VLM_API_KEY", "")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return {
        "base_url": base_url.rstrip("/"),
        "headers": headers,
        "timeout": timeout_s,
        "transport": transport,
        "trust_env": False,
    }


class CaptionClient:
    """Captions pictures over HTTP. Reuses its connection, also from several threads; close it, or use `with`.

    `timeout_s` is the longest wait for the server's next sign of life; `retries`: how often a call is tried again.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str = "",
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._retries = retries
        self._http = httpx.Client(**_settings(base_url, api_key, timeout_s, transport))

    def caption(self, pictures: Sequence[Picture], **options: Unpack[Options]) -> list[CaptionResult]:
        """Caption picture files or their bytes, in order. Raises CaptionRequestError, OSError for unreadable files."""
        return self._run(caption_steps(pictures, options, self._retries))

    def feedback(self, caption_id: str, caption: str, *, rating: int | None = None, reason: str = "") -> None:
        """Say what the caption of that id (`CaptionResult.caption_id`) should have been; `rating`: how good it was, 1
        worst to 5 best; `reason`: what was wrong. Raises CaptionRequestError.
        """
        self._run(feedback_steps(caption_id, caption, rating, reason, self._retries))

    def models(self) -> list[Model]:
        """The models that answer. Raises CaptionRequestError if none does yet."""
        return self._run(models_steps(self._retries))

    def model_version(self) -> str:
        """Version of the model that answers. Raises CaptionRequestError if none does yet."""
        return self.models()[0].version

    def ready(self) -> bool:
        """Whether captions can be had now; False also if nothing answers at the address."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> "CaptionClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        came: Came = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as end:
                return end.value
            came = time.sleep(step.seconds) if isinstance(step, Pause) else self._send(step)

    def _send(self, send: Send) -> Came:
        try:
            return self._http.request(send.method, send.path, **send.arguments)
        except httpx.HTTPError as error:
            return error


class AsyncCaptionClient:
    """CaptionClient for asyncio: `async with AsyncCaptionClient(url) as client: await client.caption([...])`."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str = "",
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._retries = retries
        self._http = httpx.AsyncClient(**_settings(base_url, api_key, timeout_s, transport))

    async def caption(self, pictures: Sequence[Picture], **options: Unpack[Options]) -> list[CaptionResult]:
        """See CaptionClient.caption."""
        return await self._run(caption_steps(pictures, options, self._retries))

    async def feedback(self, caption_id: str, caption: str, *, rating: int | None = None, reason: str = "") -> None:
        """See CaptionClient.feedback."""
        await self._run(feedback_steps(caption_id, caption, rating, reason, self._retries))

    async def models(self) -> list[Model]:
        """See CaptionClient.models."""
        return await self._run(models_steps(self._retries))

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncCaptionClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        came: Came = None
        while True:
            try:
                step = steps.send(came)
            except StopIteration as end:
                return end.value
            if isinstance(step, Pause):
                came = await asyncio.sleep(step.seconds)
            else:
                came = await self._send(step)

    async def _send(self, send: Send) -> Came:
        try:
            return await self._http.request(send.method, send.path, **send.arguments)
        except httpx.HTTPError as error:
            return error


__all__ = ["AsyncCaptionClient", "CaptionClient", "CaptionRequestError", "CaptionResult", "Model", "Options"]
