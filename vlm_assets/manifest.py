"""The manifest of an artifact: what it was made from, and every file with its digest. It makes the artifact exist."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vlm_assets.contracts import VERSION_HEX_DIGITS, Recipe, canonical_json, digest
from vlm_assets.errors import StoreError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


def write_manifest(path: Path, recipe: Recipe, counts: Mapping[str, int]) -> None:
    """Write the manifest of what lies in `path`: recipe, counts, sha256 and bytes of each file."""
    files = {
        file.relative_to(path).as_posix(): {"sha256": file_sha256(file), "bytes": file.stat().st_size}
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    manifest = {"schema": SCHEMA_VERSION, "version": recipe.version, "recipe": recipe.to_json()}
    (path / MANIFEST).write_text(canonical_json({**manifest, "counts": dict(counts), "files": files}) + "\n")


def read_foreign_manifest(directory: Path, name: str) -> dict[str, Any]:
    """The manifest of an artifact directory that did not come out of this store, believed only as far as it fits."""
    try:
        manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_bytes())
        inside = [PurePosixPath(path) for path in manifest["files"]]
        version = digest(manifest["recipe"])[:VERSION_HEX_DIGITS]
        fits = manifest["schema"] == SCHEMA_VERSION and (manifest["recipe"]["name"], version) == (
            name,
            manifest["version"],
        )
    except FileNotFoundError as error:
        raise StoreError(f"{directory} holds no {name}: it has no {MANIFEST}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{directory / MANIFEST} is not the manifest of an artifact: {error!r}.") from error
    if not fits or any(path.is_absolute() or ".." in path.parts for path in inside):
        raise StoreError(f"{directory / MANIFEST} is not the manifest of a {name}: name, version and recipe disagree.")
    missing = [path for path in manifest["files"] if not (directory / path).is_file()]
    if missing:
        raise StoreError(f"{directory} lacks {len(missing)} of {len(inside)} files, first {missing[0]}: restore it.")
    return manifest


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
