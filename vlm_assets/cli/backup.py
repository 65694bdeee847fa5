"""`backup DIR` and `restore DIR`: the state of one machine, copied while it runs, and put back checked.

Databases are copied by SQLite's own backup, which sees a moment between two writes. Each file's sha256 is in
`backup.json`, which is written last: a directory without it is no backup.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from vlm_assets.cli.state import DATABASE_SUFFIX, Part, elsewhere, files_of, local_parts
from vlm_assets.disk import room_needed
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.manifest import file_sha256

INDEX = "backup.json"
SCHEMA = 1
BLOCK_BYTES = 1 << 20
SQLITE_MAGIC = b"SQLite format 3\0"
Say = Callable[[str], object]


def backup(target: Path, say: Say = print) -> int:
    """Copy the state into the new directory `target`. Raises ConfigError if there is something, or nothing to keep."""
    parts = local_parts()
    if not (parts[0].directory / "dagster.yaml").is_file():
        raise ConfigError(f"{parts[0].directory} is no Dagster home: it has no dagster.yaml. Set DAGSTER_HOME.")
    if any(target.absolute().is_relative_to(part.directory) for part in parts):
        raise ConfigError(f"{target} lies in what is to be copied. Give a directory outside of {parts[0].directory}.")
    _require_empty(target, "A backup wants a directory of its own.")
    with room_needed(target, "another DIR"):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = {
            f"{part.name}/{name}": entry for part in parts for name, entry in _copy_part(part, target, say).items()
        }
        index = {
            "schema": SCHEMA,
            "time_unix_s": time.time(),
            "parts": {part.name: str(part.directory) for part in parts},
            "not_here": elsewhere(),
            "files": files,
        }
        fresh = target / f".{INDEX}"
        fresh.write_text(json.dumps(index, indent=1) + "\n")
        fresh.rename(target / INDEX)
    say(f"{len(files)} files, {sum(one['bytes'] for one in files.values()):,} bytes in {target}")
    for name, uri in elsewhere().items():
        say(f"not in it: {name}, {uri}. Back it up with its own tools (docs/deployment.md).")
    return 0


def restore(source: Path, say: Say = print) -> int:
    """Check every file of the backup, then put it where it came from.

    Raises StoreError if anything is missing or altered; ConfigError if something is there already, or if the settings
    name other directories: MLflow's database holds whole paths.
    """
    index = _read_index(source)
    parts = local_parts()
    _require_same_places(index, parts)
    for part in parts:
        _require_empty(part.directory, "Restoring never overwrites: move it away.")
    say(f"checking {len(index['files'])} files")
    _verify(source, index)
    for part in reversed(parts):  # the home last: it is what makes the rest visible
        _put_back(source / part.name, part.directory)
        say(f"{part.name}: {part.directory}")
    for name, uri in index["not_here"].items():
        say(f"not in it: {name}, {uri}. Restore it with its own tools.")
    return 0


def _copy_part(part: Part, target: Path, say: Say) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    for path in files_of(part.directory):
        name = path.relative_to(part.directory)
        copy = target / part.name / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            digest = _copy(path, copy)
        except FileNotFoundError:  # e.g. a segment of the request log that went into the store meanwhile
            say(f"gone while it was to be copied: {path}")
            continue
        entries[name.as_posix()] = {"sha256": digest, "bytes": copy.stat().st_size}
    return entries


def _copy(path: Path, copy: Path) -> str:
    """Copy one file; returns the digest of what was written."""
    if path.suffix == DATABASE_SUFFIX and _is_sqlite(path):
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(copy)) as kept,
        ):
            live.backup(kept)
        return file_sha256(copy)
    digest = hashlib.sha256()
    with path.open("rb") as reader, copy.open("wb") as writer:
        while block := reader.read(BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
    shutil.copystat(path, copy)
    return digest.hexdigest()


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE_MAGIC)) == SQLITE_MAGIC


def _read_index(source: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((source / INDEX).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise StoreError(f"{source} is no whole backup: {INDEX} cannot be read ({error}). Take another one.") from error
    if index["schema"] != SCHEMA:
        raise StoreError(f"{source} has schema {index['schema']}; this release reads {SCHEMA}. Use that of the backup.")
    return index


def _verify(source: Path, index: dict[str, Any]) -> None:
    files: dict[str, dict[str, Any]] = index["files"]
    bad = [
        name
        for name, entry in files.items()
        if not (source / name).is_file() or file_sha256(source / name) != entry["sha256"]
    ]
    if bad:
        listed = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise StoreError(f"{source} is damaged, nothing was restored: missing or altered: {listed}. Take another one.")


def _require_same_places(index: dict[str, Any], parts: list[Part]) -> None:
    now = {part.name: str(part.directory) for part in parts}
    if now != index["parts"]:
        raise ConfigError(
            f"The backup was made of {_places(index['parts'])}; the settings now say {_places(now)}. MLflow's database "
            "holds whole paths: set DAGSTER_HOME, VLM_STORE and VLM_REQUEST_LOG as they were."
        )


def _places(parts: dict[str, str]) -> str:
    return ", ".join(f"{name} {directory}" for name, directory in parts.items())


def _require_empty(directory: Path, why: str) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} is there and not empty. {why}")


def _put_back(copy: Path, directory: Path) -> None:
    """Beside its place first, then one rename."""
    fresh = directory.with_name(f".{directory.name}.restoring")
    with room_needed(directory.parent, "the path"):
        shutil.rmtree(fresh, ignore_errors=True)  # of a restore that was killed
        directory.parent.mkdir(parents=True, exist_ok=True)
        if copy.is_dir():
            shutil.copytree(copy, fresh)
        else:  # it held no file
            fresh.mkdir()
        os.replace(fresh, directory)
