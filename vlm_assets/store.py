"""Artifacts: versioned directories that readers see whole or not at all.

An artifact lives at `<root>/<name>/<version>/`. Its files are written and hashed in a private place first; the manifest
is what makes it exist. On a local disk one rename publishes the directory, on S3 the manifest is put last and only if
none is there. Nobody looks for the newest: a version is the digest of the recipe, so equal recipes are built once.

What is built and not yet published (the network was away, the process was killed) is kept, and published by the next
run of the same recipe.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.disk import room_needed
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.manifest import MANIFEST, file_sha256, read_foreign_manifest, write_manifest
from vlm_assets.scratch import Scratch
from vlm_assets.staging import remove_dead_staging, rename_unless_there, staging

HOUSEKEEPING = ".vlm"  # staging and scratch, beside the artifacts so that a rename stays on one file system


@dataclass
class Draft:
    """What a writer fills: files below `path`, and counts worth showing (rows, pictures)."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Built:
    """An artifact that exists now. `reused`: it had been built before and nothing was written."""

    ref: ArtifactRef
    path: Path
    reused: bool


class Backend(Protocol):
    """Where published artifacts live."""

    uri: str
    housekeeping: Path  # local disk for what is being written, and for copies of what is remote
    disk_setting: str  # the variable that says where that is

    def read_manifest(self, name: str, version: str) -> bytes | None:
        """The manifest's bytes, or None if there is no such artifact."""
        ...

    def address(self, name: str, version: str, manifest: bytes) -> str:
        """Where the artifact's files are: a path or URI that pandas, DuckDB and `datasets` take."""
        ...

    def publish(self, built: Path, name: str, version: str) -> bool:
        """Make the whole directory `built` the artifact; False if somebody else published it first."""
        ...

    def local_directory(self, name: str, version: str, manifest: bytes) -> Path:
        """The artifact's files and manifest on local disk."""
        ...

    def local_file(self, name: str, version: str, manifest: bytes, path: str) -> AbstractContextManager[Path]:
        """One of the artifact's files on local disk, until the block ends."""
        ...

    def read_text(self, key: str) -> str | None:
        """A small mutable document (a reference, a ledger entry), or None."""
        ...

    def write_text(self, key: str, text: str, *, only_if_absent: bool = False) -> bool:
        """Replace a small document atomically; with `only_if_absent`, False if it exists already."""
        ...

    def list_keys(self, prefix: str) -> list[str]:
        """Names of the small documents directly below `prefix`, sorted."""
        ...


class Store:
    """Builds, finds and opens artifacts below a local path or `s3://bucket/prefix`."""

    def __init__(self, root: str | Path) -> None:
        self.backend: Backend = _open_backend(str(root))
        self._scratch = Scratch(self.backend.housekeeping / "scratch")

    @property
    def uri(self) -> str:
        """Where the artifacts live."""
        return self.backend.uri

    def lookup(self, name: str, version: str) -> ArtifactRef | None:
        """The artifact of this name and version, if there is one."""
        return self._find(name, version)

    def find(self, recipe: Recipe) -> ArtifactRef | None:
        """The artifact built from an equal recipe, if there is one."""
        return self._find(recipe.name, recipe.version)

    def build(self, recipe: Recipe, write: Callable[[Draft], object]) -> Built:
        """Reuse the artifact of this recipe, or let `write` fill a new one and publish it.

        If `write` raises, or the process dies, nothing is published and nothing that was there is touched.
        """

        def fill(staged: Path) -> None:
            draft = Draft(staged)
            write(draft)
            write_manifest(staged, recipe, draft.counts)

        whole = False
        try:
            built = self._build(recipe.name, recipe.version, fill)
            whole = True
        finally:
            self._scratch.leave(recipe.name, recipe.version, built=whole)
        return built

    def adopt(self, directory: Path, name: str) -> Built:
        """Publish a copy of an artifact from elsewhere (a data registry, another store) under its own version.

        Every byte is compared with the manifest in `directory` before; StoreError if it is not whole.
        """
        manifest = read_foreign_manifest(directory, name)

        def fill(staged: Path) -> None:
            for path, entry in manifest["files"].items():
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(directory / path, staged / path)
                if file_sha256(staged / path) != entry["sha256"]:
                    raise StoreError(f"{directory / path} was altered: restore {directory} and materialize again.")
            shutil.copyfile(directory / MANIFEST, staged / MANIFEST)

        return self._build(name, manifest["version"], fill)

    def directory(self, ref: ArtifactRef) -> Path:
        """A local directory with the artifact's files, each of the size the manifest says.

        Raises StoreError if the artifact is gone or damaged. `verify` checks every byte.
        """
        manifest = self._checked_manifest(ref)
        path = self.backend.local_directory(ref.name, ref.version, manifest)
        for name, entry in json.loads(manifest)["files"].items():
            file = path / name
            size = file.stat().st_size if file.is_file() else None
            if size != entry["bytes"]:
                raise StoreError(
                    f"{file} has {size} bytes, the manifest says {entry['bytes']}. The artifact {ref.name} "
                    f"{ref.version} is damaged: remove {path} and materialize {ref.name} again."
                )
        return path

    def file(self, ref: ArtifactRef, path: str) -> AbstractContextManager[Path]:
        """One of the artifact's files on local disk: `with store.file(ref, "train-00000.parquet") as local:`.

        From S3 it alone is fetched, and may make room for others when the block has ended: so that a pass over the
        files needs no disk for all of them. Raises StoreError as `directory` does.
        """
        manifest = self._checked_manifest(ref)
        if path not in json.loads(manifest)["files"]:
            raise StoreError(f"{ref.name} {ref.version} has no file {path!r}.")
        return self.backend.local_file(ref.name, ref.version, manifest, path)

    def verify(self, ref: ArtifactRef) -> None:
        """Compare the sha256 of every file with the manifest; StoreError names the first that differs."""
        path = self.directory(ref)
        for name, entry in self.manifest(ref)["files"].items():
            if file_sha256(path / name) != entry["sha256"]:
                raise StoreError(f"{path / name} was altered: remove {path} and materialize {ref.name} again.")

    def manifest(self, ref: ArtifactRef) -> dict[str, Any]:
        """The artifact's manifest: recipe, counts, sha256 and bytes of each file."""
        return json.loads(self._checked_manifest(ref))

    def parent(self, ref: ArtifactRef, name: str) -> ArtifactRef:
        """The artifact called `name` that `ref` was built from, be there newer ones or not."""
        version = self.manifest(ref)["recipe"]["parents"][name]
        found = self._find(name, version)
        if found is None:
            raise StoreError(
                f"{ref.name} {ref.version} was built from {name} {version}, which is no longer in {self.uri}. "
                f"Materialize {name} and {ref.name} again."
            )
        return found

    def scratch(self, recipe: Recipe) -> Path:
        """A local working directory for this recipe that survives a killed run and goes when it is built.

        Those of other versions go when nobody has used them for a week.
        """
        return self._scratch.open(recipe.name, recipe.version)

    def _find(self, name: str, version: str) -> ArtifactRef | None:
        manifest = self.backend.read_manifest(name, version)
        return None if manifest is None else _ref(self.backend, name, version, manifest)

    def _build(self, name: str, version: str, fill: Callable[[Path], object]) -> Built:
        found = self._find(name, version)
        if found is not None:
            return Built(found, self.directory(found), reused=True)
        remove_dead_staging(self.backend.housekeeping)
        whole = self.backend.housekeeping / "unpublished" / f"{name}-{version}"
        if not whole.is_dir():
            setting = self.backend.disk_setting
            with staging(self.backend.housekeeping, name, version, setting) as staged, room_needed(staged, setting):
                fill(staged)
                rename_unless_there(staged, whole)
        try:
            self.backend.publish(whole, name, version)
        except StoreError as error:
            raise StoreError(f"{error} What was built is kept in {whole}; the next run publishes it.") from error
        shutil.rmtree(whole, ignore_errors=True)
        ref = self._find(name, version)
        if ref is None:
            raise StoreError(f"{name} {version} was published to {self.uri} but cannot be read back.")
        return Built(ref, self.directory(ref), reused=False)

    def _checked_manifest(self, ref: ArtifactRef) -> bytes:
        data = self.backend.read_manifest(ref.name, ref.version)
        if data is None:
            raise StoreError(
                f"There is no {ref.name} {ref.version} in {self.uri} (referenced as {ref.uri}). "
                f"Materialize {ref.name} again, or point VLM_STORE at the store that has it."
            )
        if hashlib.sha256(data).hexdigest() != ref.sha256:
            raise StoreError(
                f"The manifest of {ref.name} {ref.version} is not the one referenced ({ref.sha256[:12]}…)."
            )
        return data


def _ref(backend: Backend, name: str, version: str, manifest: bytes) -> ArtifactRef:
    counts: Mapping[str, int] = json.loads(manifest)["counts"]
    uri = backend.address(name, version, manifest)
    return ArtifactRef(name, version, uri, hashlib.sha256(manifest).hexdigest(), counts)


def _open_backend(root: str) -> Backend:
    if root.startswith("s3://"):
        from vlm_assets.store_s3 import S3Backend

        return S3Backend(root)
    if "://" in root:
        raise ConfigError(f"VLM_STORE is {root!r}; it takes a local path or s3://bucket/prefix.")
    from vlm_assets.store_local import LocalBackend

    return LocalBackend(Path(root).expanduser().absolute())
