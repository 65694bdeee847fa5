"""captions.jsonl: one JSON object per picture, appended as it is captioned, and read again by the run that goes on.

A line is written whole or, if the process dies in the middle, cut off by the next run. Pictures that failed are tried
again by the next run, so their lines go when it starts.
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from vlm_serving.errors import OutputError

Line = dict[str, Any]


class CaptionLines:
    """An open captions.jsonl. `done` are the files that have a caption from an earlier run."""

    def __init__(self, file: BinaryIO, done: frozenset[str]) -> None:
        self._file = file
        self.done = done

    def append(self, line: Line) -> None:
        """Write a line; it is with the operating system when this returns."""
        self._file.write(encoded(line))
        self._file.flush()


@contextmanager
def open_lines(path: Path, model_version: str) -> Iterator[CaptionLines]:
    """Create the file or go on with it. Raises OutputError if it is not ours, another model's, or in use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as open_files:
        file = open_files.enter_context(_locked(path, path))
        file.seek(0)
        data = file.read()
        kept = _kept(path, data, model_version)
        if (clean := b"".join(map(encoded, kept))) != data:
            beside = path.with_name(f".{path.name}.tmp")
            beside.unlink(missing_ok=True)
            file = open_files.enter_context(_locked(beside, path))  # both stay locked: nobody gets hold of either
            file.write(clean)
            file.flush()
            beside.replace(path)
        yield CaptionLines(file, frozenset(line["file"] for line in kept))


def encoded(line: Line) -> bytes:
    """A line as it stands in the file. File names that are not UTF-8 keep their bytes."""
    return (json.dumps(line, ensure_ascii=False) + "\n").encode(errors="surrogateescape")


@contextmanager
def _locked(path: Path, asked: Path) -> Iterator[BinaryIO]:
    """The file, to read and append; the lock ends with the process, however it ends."""
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"Another run is writing {asked}. Wait for it, or choose another --out.") from error
        yield file


def _kept(path: Path, data: bytes, model_version: str) -> list[Line]:
    """The lines with captions; what stands behind the last line's end was cut off."""
    whole = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    kept = [line for line in (_parsed(path, *row) for row in enumerate(whole, 1)) if "caption" in line]
    others = sorted({line["model_version"] for line in kept} - {model_version})
    if others:
        raise OutputError(
            f"{path} holds captions of model {', '.join(others)}; this run's is {model_version}. Choose another --out, "
            "or remove that file."
        )
    return kept


def _parsed(path: Path, number: int, text: bytes) -> Line:
    try:
        line = json.loads(text.decode(errors="surrogateescape"))
        if isinstance(line, dict) and "file" in line and ("error" in line or {"caption", "model_version"} <= set(line)):
            return line
    except ValueError:
        pass
    raise OutputError(f"{path}, line {number}, is no line of captions: {text[:60]!r}. Choose another --out.")
