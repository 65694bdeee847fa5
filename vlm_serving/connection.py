"""How long a client waits: the time it allows by a header, and whether it is still there."""

import asyncio
import math
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import Request

from vlm_serving.errors import ClientGoneError, RequestError

TIMEOUT_HEADER = "x-request-timeout-s"
T = TypeVar("T")


def asked_timeout_s(headers: Mapping[str, str], limit_s: float) -> float:
    """Seconds that the client allows, at most `limit_s`. RequestError if the header is no number above 0."""
    text = headers.get(TIMEOUT_HEADER)
    if text is None:
        return limit_s
    try:
        asked_s = float(text)
    except ValueError:
        asked_s = math.nan
    if not asked_s > 0:
        raise RequestError(
            f"{TIMEOUT_HEADER} is {text[:40]!r}; it must be a number of seconds above 0. More than {limit_s:g} counts "
            "as that."
        )
    return min(asked_s, limit_s)


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection; then ClientGoneError.

    To be called once the body has been read: what the client sends afterwards is lost.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError("The client has closed the connection; its pictures were taken out of the queue.")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
