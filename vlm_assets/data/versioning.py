"""Snapshots and shards under DVC: each version that is made is tracked, and an old one comes back as it was.

The manifest of an artifact never changes, as references hold its digest; which commit of the registry holds the
artifact is only known afterwards. It stands in a document beside: `registry/<name>/<version>.json` in the store.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from vlm_assets.contracts import Recipe
from vlm_assets.data.registry import REGISTRY_ENV, Registry, Tracked, open_registry
from vlm_assets.data.registry_commands import find_dvc, no_dvc
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.manifest import MANIFEST
from vlm_assets.store import Built, Draft, Store

Log = Callable[[str], object]


class RegistryConfig(dg.Config):
    """A raw_dataset of a data registry: nothing is imported, its data version is what it was."""

    kind: Literal["registry"] = "registry"
    path: str = Field(default="", description="the registry's directory; empty = VLM_DVC_REGISTRY")
    revision: str = Field(
        default="", description="git commit, tag or branch of the registry; empty = what is checked out (dvc pull)"
    )


def build_versioned(
    store: Store, recipe: Recipe, write: Callable[[Draft], object], log: Log
) -> tuple[Built, Mapping[str, str]]:
    """`store.build`, then DVC; returns what DVC knows, as metadata (empty while VLM_DVC_REGISTRY is unset).

    A version that the store lacks and the registry has checked out is taken from there rather than built.
    """
    registry = open_registry()
    if registry is None:
        return store.build(recipe, write), {}
    folder = registry.folder(recipe.name)
    if store.find(recipe) is None and _version_of(folder) == recipe.version:
        log(f"{recipe.name} {recipe.version} is checked out in {registry.root}: taken from there")
        built = store.adopt(folder, recipe.name)
    else:
        built = store.build(recipe, write)
    return built, _track(store, registry, built, log).to_metadata()


def restore(
    store: Store, config: RegistryConfig, name: str, code_version: str, log: Log
) -> tuple[Built, Mapping[str, str]]:
    """Bring the artifact of a registry's revision back into the store, under the version that it had."""
    registry = _registry_of(config)
    held = Path(tempfile.mkdtemp(prefix=f"vlm-{name}-"))
    try:
        if config.revision:
            log(f"dvc get {name} at revision {config.revision} of {registry.root}")
            folder = held / name
            tracked = registry.fetch(name, config.revision, folder)
        else:
            folder, tracked = registry.folder(name), registry.held(name)
            _check_is_there(folder, registry)
        _check_code_version(folder, name, code_version)
        built = store.adopt(folder, name)
    finally:
        shutil.rmtree(held, ignore_errors=True)
    _note(store, built, tracked)
    return built, tracked.to_metadata()


def _track(store: Store, registry: Registry, built: Built, log: Log) -> Tracked:
    counts = ", ".join(f"{count:,} {what}" for what, count in built.ref.counts.items())
    message = f"{built.ref.name} {built.ref.version}{f': {counts}' if counts else ''}"
    tracked = registry.track(built.ref.name, built.path, message, log)
    _note(store, built, tracked)
    return tracked


def _note(store: Store, built: Built, tracked: Tracked) -> None:
    document = json.dumps({"manifest_sha256": built.ref.sha256, **asdict(tracked)}, indent=1)
    store.backend.write_text(f"registry/{built.ref.name}/{built.ref.version}.json", document + "\n")


def _registry_of(config: RegistryConfig) -> Registry:
    path, dvc = config.path or os.environ.get(REGISTRY_ENV, ""), find_dvc()
    if not path:
        raise ConfigError(f"source.registry needs a registry: set its path, or {REGISTRY_ENV}.")
    if not dvc:
        raise ConfigError(no_dvc())
    root = Path(path).expanduser().absolute()
    if not (root / ".dvc").is_dir():
        raise ConfigError(f"{root} is no data registry: it has no .dvc. Set source.registry.path, or {REGISTRY_ENV}.")
    return Registry(root, dvc)


def _check_is_there(folder: Path, registry: Registry) -> None:
    if not (folder / MANIFEST).is_file():
        raise StoreError(f"{folder} is not checked out. Fetch it first: cd {registry.root} && dvc pull {folder.name}")


def _check_code_version(folder: Path, name: str, code_version: str) -> None:
    made_by = _manifest(folder).get("recipe", {}).get("code_version")
    if made_by is not None and made_by != code_version:
        raise StoreError(
            f"This {name} was made by code version {made_by}, and this code reads version {code_version}. "
            "Use the release that made it, or import the source again."
        )


def _version_of(folder: Path) -> str | None:
    return _manifest(folder).get("version")


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest's content, or nothing: whether it can be believed is for the store to say."""
    try:
        value = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
