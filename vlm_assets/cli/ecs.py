"""`python -m vlm_assets ecs NAME COMMAND…`: run a program, with what it prints as ECS lines without secrets.

How Dagster's, MLflow's and Ray's processes get the log format of our own: VLM_LOG_FORMAT=ecs makes `up` start them so,
containers can put it in front of their command.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from vlm_assets.children import end_with_parent
from vlm_assets.errors import ConfigError
from vlm_assets.logs.lines import LineReader, Record
from vlm_serving.redaction import Redactor

IDLE_S = 0.5  # a record that has not gone on for so long is complete


def ecs(name: str, command: Sequence[str]) -> int:
    """Run it to its end and return its exit code; signals go to it. ConfigError if it cannot be started."""
    redact = Redactor(os.environ)

    def write(record: Record) -> None:
        sys.stdout.write(redact(json.dumps(record, ensure_ascii=False)) + "\n")
        sys.stdout.flush()

    if not command:
        raise ConfigError("There is no command: python -m vlm_assets ecs NAME COMMAND [ARGUMENT…]")
    try:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=end_with_parent)
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot be started: {error.strerror}.") from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _: child.send_signal(caught))
    assert child.stdout is not None
    convert(child.stdout, LineReader(name), write)
    code = child.wait()
    return 128 - code if code < 0 else code  # as shells say it


def convert(
    source: IO[bytes], reader: LineReader, write: Callable[[Record], object], clock: Callable[[], float] = time.time
) -> None:
    """Lines from `source` until its end; each record is written as soon as it is complete."""
    for line in _lines(source):
        for record in reader.flush() if line is None else reader.feed(line, clock()):
            write(record)
    for record in reader.flush():
        write(record)


def _lines(source: IO[bytes]) -> Iterator[str | None]:
    """Whole lines as they come; None whenever nothing has come for a while."""
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            if not selector.select(IDLE_S):
                yield None
                continue
            data = os.read(source.fileno(), 65536)
            if not data:
                break
            *whole, held = (held + data).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
    if held:
        yield held.decode(errors="replace")
