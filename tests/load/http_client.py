"""A bare HTTP/1.1 client on asyncio: a load generator must not take the cores that the server is measured on."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

BOUNDARY = b"vlm-load-7d93b1"
LOST = 0  # status of a request whose connection broke or that nobody answered in time


@dataclass(frozen=True)
class Answer:
    """What came back. `status` is LOST if nothing did, and `body` then says why."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connections:
    """Keep-alive connections to one server; as many as there are requests at a time, the last used taken first."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.timeout_s = timeout_s
        self._idle: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()

    async def post(self, path: str, content_type: str, body: bytes) -> Answer:
        """Send a request and read its answer. Never raises; nothing is sent twice."""
        head = f"POST {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nContent-Type: {content_type}\r\n"
        return await self._exchange(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def post_file(self, path: str, field: str, data: bytes) -> Answer:
        """Upload one file as a browser's form does."""
        head = f'Content-Disposition: form-data; name="{field}"; filename="picture.jpg"\r\nContent-Type: image/jpeg'
        body = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (BOUNDARY, head.encode(), data, BOUNDARY)
        return await self.post(path, f"multipart/form-data; boundary={BOUNDARY.decode()}", body)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _exchange(self, request: bytes) -> Answer:
        writer = None
        try:
            async with asyncio.timeout(self.timeout_s):
                reader, writer = await self._connection()
                writer.write(request)
                await writer.drain()
                answer, keep = await _read(reader)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
            if writer:
                writer.close()
            return Answer(LOST, {}, repr(error).encode())
        if keep:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():  # the server closes those that were idle for long
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self.host, self.port)


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    """An answer, and whether the connection may be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ", 2)[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif headers.get("transfer-encoding") == "chunked":
        body = await _read_chunks(reader)
    else:
        return Answer(status, headers, await reader.read()), False
    return Answer(status, headers, body), headers.get("connection", "").lower() != "close"


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        pieces.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    return b"".join(pieces)


def wait_until_answers(url: str, path: str, field: str, data: bytes, timeout_s: float) -> Answer:
    """Upload a picture until it is answered with 200; TimeoutError with the last answer."""

    async def ask() -> Answer:
        async with Connections(url, timeout_s) as connections:
            return await connections.post_file(path, field, data)

    deadline_s = time.monotonic() + timeout_s
    while (answer := asyncio.run(ask())).status != 200:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{url}{path} gave no caption in {timeout_s:.0f} s; last: {answer.status} {answer.body}")
        time.sleep(0.3)
    return answer
