"""Files, folders and patterns from a command line -> the picture files that they mean, each once."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_serving.errors import PathsError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"))


def picture_paths(arguments: Sequence[str]) -> list[Path]:
    """The files meant, in the order of the arguments; those of a folder or pattern sorted, folders with all below.

    A file that is named is taken whatever it is called, and even if it is not there: its caption will say so. Raises
    PathsError, with every one that fits, for folders and patterns in which there is no picture.
    """
    found: dict[Path, None] = {}
    empty: list[str] = []
    for argument in arguments:
        before = len(found)
        meant = list(_meant(argument))
        found.update(dict.fromkeys(meant))
        if not meant and len(found) == before:
            empty.append(argument)
    if empty:
        raise PathsError(f"No pictures ({', '.join(sorted(SUFFIXES))}) in {', '.join(empty)}. Name others.")
    return list(found)


def _meant(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if path.is_dir():
        yield from _below(path)
    elif path.exists() or not glob.has_magic(argument):
        yield path
    else:
        for match in sorted(glob.glob(argument, recursive=True)):
            one = Path(match)
            yield from _below(one) if one.is_dir() and not argument.endswith("**") else [one] if _picture(one) else []


def _below(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if _picture(path))


def _picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
