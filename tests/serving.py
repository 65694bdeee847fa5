"""Helpers of the serving tests: the HTTP application over an in-process service, and pictures of every bad kind."""

import asyncio
import io
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from PIL import Image

from vlm_serving.config import ServingConfig
from vlm_serving.engine import RunBatch, Submit
from vlm_serving.request_log import RequestLog
from vlm_serving.service import CaptionService
from vlm_serving.telemetry import MemoryMeters, Meters
from vlm_serving.web import create_web


class InProcess(httpx.BaseTransport):
    """Hands requests of a synchronous httpx client to an ASGI application, without a socket."""

    def __init__(self, service: CaptionService) -> None:
        self._asgi = httpx.ASGITransport(create_web(lambda: service), raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def exchange() -> httpx.Response:
            if isinstance(request.stream, httpx.SyncByteStream) and not isinstance(
                request.stream, httpx.AsyncByteStream
            ):
                request.stream = Chunks(list(request.stream))
            answer = await self._asgi.handle_async_request(request)
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(exchange())


class Chunks(httpx.AsyncByteStream):
    """A body in pieces, as chunked transfer gives it."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def __aiter__(self):
        for piece in self._pieces:
            yield piece


def make_service(
    bundle: Path | None,
    log: RequestLog | None = None,
    batched: Callable[[RunBatch], Submit] | None = None,
    meters: Meters | None = None,
    **settings: object,
) -> CaptionService:
    """A service on the CPU, by default with in-memory meters; without a bundle it is not ready."""
    service = CaptionService(ServingConfig(device="cpu", **settings), meters or MemoryMeters(), log, batched)
    if bundle:
        service.put_model(str(bundle))
    return service


def make_client(service: CaptionService) -> httpx.Client:
    return httpx.Client(transport=InProcess(service), base_url="http://captioner")


@contextmanager
def over_http(web: Any) -> Iterator[str]:
    """The ASGI application on a port of loopback; yields its address."""
    server = uvicorn.Server(uvicorn.Config(web, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noisy_jpeg() -> bytes:
    return encode(Image.effect_noise((200, 160), 80).convert("RGB"), "JPEG")


def bomb_png(width_px: int = 30_000, height_px: int = 30_000) -> bytes:
    """A PNG of a few dozen bytes whose header claims a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def palette_with_alpha() -> bytes:
    picture = Image.new("P", (30, 20))
    picture.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
    picture.putpixel((3, 3), 1)
    return encode(picture, "PNG", transparency=bytes([0, 128]))


GOOD = {
    "jpeg": noisy_jpeg(),
    "progressive jpeg": encode(Image.new("RGB", (50, 40), "red"), "JPEG", progressive=True),
    "cmyk jpeg": encode(Image.new("CMYK", (50, 40)), "JPEG"),
    "phone's jpeg": encode(Image.new("RGB", (50, 40)), "MPO", save_all=True, append_images=[Image.new("L", (9, 9))]),
    "grey jpeg": encode(Image.new("L", (50, 40), 90), "JPEG"),
    "16-bit png": encode(Image.new("I;16", (50, 40), 40_000), "PNG"),
    "1-bit png": encode(Image.new("1", (50, 40)), "PNG"),
    "palette png with alpha": palette_with_alpha(),
    "rgba png": encode(Image.new("RGBA", (50, 40), (9, 9, 9, 40)), "PNG"),
    "one pixel": encode(Image.new("RGB", (1, 1)), "PNG"),
    "very wide": encode(Image.new("RGB", (4000, 1)), "PNG"),
    "gif": encode(Image.new("P", (50, 40)), "GIF"),
    "webp": encode(Image.new("RGB", (50, 40)), "WEBP"),
    "bmp": encode(Image.new("RGB", (50, 40)), "BMP"),
}
BAD = {
    "empty": (b"", 400, "bad-picture", "is empty"),
    "text named .jpg": (b"I am not a picture", 415, "unsupported-picture", "not a readable picture"),
    "html": (b"<html><body>404</body></html>", 415, "unsupported-picture", "Allowed: JPEG"),
    "svg with an entity bomb": (b'<!DOCTYPE a [<!ENTITY b "b">]><svg>&b;</svg>', 415, "unsupported-picture", "Allowed"),
    "tiff": (encode(Image.new("RGB", (9, 9)), "TIFF"), 415, "unsupported-picture", "is TIFF, which is not read. Allow"),
    "truncated jpeg": (noisy_jpeg()[:3000], 400, "bad-picture", "damaged or cut off"),
    "truncated png": (encode(Image.effect_noise((90, 90), 50), "PNG")[:900], 400, "bad-picture", "damaged or cut off"),
    "jpeg header only": (noisy_jpeg()[:20], 415, "unsupported-picture", "not a readable picture"),
    "bomb": (bomb_png(), 413, "picture-too-large", "900,?000,?000|900000000"),
    "bomb below Pillow's own limit": (bomb_png(9000, 9000), 413, "picture-too-large", "81,000,000 pixels"),
    "null bytes": (b"\0" * 5000, 415, "unsupported-picture", "not a readable picture"),
}
