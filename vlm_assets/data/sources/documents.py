"""Annotation files read whole, with errors that name the file, the line and the column."""

import difflib
import json
from collections.abc import Callable, Iterable
from typing import Any

from vlm_assets.data.sources.files import Files
from vlm_assets.errors import SourceError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # as Windows editors leave it


def read_lines(files: Files, name: str) -> list[str]:
    """The lines of a UTF-8 file, as editors count them. Raises SourceError if it is empty or not UTF-8."""
    return [line.rstrip("\r") for line in read_text(files, name).split("\n")]


def read_text(files: Files, name: str) -> str:
    """A UTF-8 file. Raises SourceError if it is empty or not UTF-8."""
    data = files.read(name).removeprefix(BYTE_ORDER_MARK)
    where = address(files, name)
    if not data.strip():
        raise SourceError(f"{where} is empty (0 bytes). Fetch the file again." if not data else f"{where} is blank.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise SourceError(
            f"{where}:{line}: not UTF-8 ({error.reason} at byte {column} of the line). Save the file as UTF-8."
        ) from error


def read_json(
    files: Files,
    name: str,
    expected: str,
    *,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """A JSON file; the hooks are those of `json.loads`. `expected` tells what kind of file should be there."""
    text = read_text(files, name)
    try:
        return json.loads(text, object_hook=object_hook, object_pairs_hook=object_pairs_hook)
    except json.JSONDecodeError as error:
        where = f"{address(files, name)}:{error.lineno}"
        raise SourceError(f"{where}: not JSON ({error.msg} at column {error.colno}). Expected {expected}.") from error
    except (RecursionError, ValueError) as error:  # nested a thousand deep, a number of thousands of digits
        raise SourceError(f"{address(files, name)}: not JSON ({error}). Expected {expected}.") from error


def address(files: Files, name: str) -> str:
    """A file's whole address, as error texts show it."""
    return f"{files.uri}/{name}"


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names for an error text: sorted, the first few, and how many more."""
    known = sorted(names)
    rest = f" and {len(known) - limit:,} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + rest if known else "none"


def near(wanted: str, found: Iterable[str]) -> str:
    """ " Did you mean 'caption'?", or nothing where no name is similar."""
    matches = difflib.get_close_matches(wanted, [*found], n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(match) for match in matches)}?" if matches else ""
