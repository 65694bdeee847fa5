"""The load tools' HTTP client against a server of a few lines: every way in which an answer ends, or does not."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.load.http_client import LOST, Answer, Connections

pytestmark = pytest.mark.integration
HEAD = b"HTTP/1.1 %d X\r\n"


async def asked(answers: list[bytes], then: Callable[[Connections], Awaitable[list[Answer]]]) -> list[Answer]:
    """What `then` gets from a server that answers with these bytes in turn; one that is empty hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while answers:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            answer = answers.pop(0)
            writer.write(answer)
            if not answer or b"close" in answer:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1) as connections:
        return await then(connections)


def replies(*answers: bytes) -> list[tuple[int, bytes]]:
    async def all_of_them(connections: Connections) -> list[Answer]:
        return [await connections.post_file("/", "files", b"picture") for _ in range(len(answers))]

    return [(one.status, one.body) for one in asyncio.run(asked(list(answers), all_of_them))]


def test_answers_with_a_length_in_chunks_and_to_the_end_of_the_connection() -> None:
    assert replies(
        HEAD % 200 + b"Content-Length: 3\r\n\r\nabc",
        HEAD % 503 + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        HEAD % 200 + b"Connection: close\r\n\r\nabcd",
        HEAD % 200 + b"Content-Length: 0\r\n\r\n",
    ) == [(200, b"abc"), (503, b"abcde"), (200, b"abcd"), (200, b"")]


def test_a_lost_connection_is_a_failed_request_and_the_next_one_gets_a_new_connection() -> None:
    (first, second) = replies(b"", HEAD % 200 + b"Content-Length: 2\r\n\r\nok")
    assert (first[0], second) == (LOST, (200, b"ok"))


def test_no_answer_in_time_is_a_failed_request() -> None:
    assert replies(HEAD % 200 + b"Content-Length: 5\r\n\r\nab")[0][0] == LOST
