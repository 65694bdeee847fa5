"""Artifacts: versioned directories that readers see whole or not at all.

An artifact lives at `<root>/<name>/<version>/`. Its files are written and hashed in a private place first; the manifest
is what makes it exist. On a local disk one rename publishes the directory, on S3 the manifest is put last and only if
none is there. Nobody looks for the newest: a version is the digest of the recipe, so equal recipes are built once.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vlm_assets.contracts import ArtifactRef, Recipe, canonical_json
from vlm_assets.errors import ConfigError, StoreError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
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

    def read_manifest(self, name: str, version: str) -> bytes | None:
        """The manifest's bytes, or None if there is no such artifact."""
        ...

    def publish(self, staged: Path, name: str, version: str) -> bool:
        """Make the staged directory the artifact; False if somebody else published it first."""
        ...

    def local_directory(self, name: str, version: str) -> Path:
        """The artifact's files on local disk."""
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

    @property
    def uri(self) -> str:
        """Where the artifacts live."""
        return self.backend.uri

    def find(self, recipe: Recipe) -> ArtifactRef | None:
        """The artifact built from an equal recipe, if there is one."""
        manifest = self.backend.read_manifest(recipe.name, recipe.version)
        return None if manifest is None else _ref(self.uri, recipe.name, recipe.version, manifest)

    def build(self, recipe: Recipe, write: Callable[[Draft], object]) -> Built:
        """Reuse the artifact of this recipe, or let `write` fill a new one and publish it.

        If `write` raises, or the process dies, nothing is published and nothing that was there is touched.
        """
        found = self.find(recipe)
        if found is not None:
            return Built(found, self.directory(found), reused=True)
        _remove_dead_staging(self.backend.housekeeping)
        with _staging(self.backend.housekeeping, recipe) as staged:
            draft = Draft(staged)
            write(draft)
            _write_manifest(staged, recipe, draft.counts)
            self.backend.publish(staged, recipe.name, recipe.version)
        shutil.rmtree(self._scratch_path(recipe), ignore_errors=True)
        ref = self.find(recipe)
        if ref is None:
            raise StoreError(f"{recipe.name} {recipe.version} was published to {self.uri} but cannot be read back.")
        return Built(ref, self.directory(ref), reused=False)

    def directory(self, ref: ArtifactRef) -> Path:
        """A local directory with the artifact's files, each of the size the manifest says.

        Raises StoreError if the artifact is gone or damaged. `verify` checks every byte.
        """
        manifest = self._checked_manifest(ref)
        path = self.backend.local_directory(ref.name, ref.version)
        for name, entry in manifest["files"].items():
            file = path / name
            size = file.stat().st_size if file.is_file() else None
            if size != entry["bytes"]:
                raise StoreError(
                    f"{file} has {size} bytes, the manifest says {entry['bytes']}. The artifact {ref.name} "
                    f"{ref.version} is damaged: remove {path} and materialize {ref.name} again."
                )
        return path

    def verify(self, ref: ArtifactRef) -> None:
        """Compare the sha256 of every file with the manifest; StoreError names the first that differs."""
        path = self.directory(ref)
        for name, entry in self._checked_manifest(ref)["files"].items():
            if _sha256(path / name) != entry["sha256"]:
                raise StoreError(f"{path / name} was altered: remove {path} and materialize {ref.name} again.")

    def manifest(self, ref: ArtifactRef) -> dict[str, Any]:
        """The artifact's manifest: recipe, counts, sha256 and bytes of each file."""
        return self._checked_manifest(ref)

    def scratch(self, recipe: Recipe) -> Path:
        """A local working directory for this recipe that survives a killed run and goes when it is built."""
        path = self._scratch_path(recipe)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _scratch_path(self, recipe: Recipe) -> Path:
        return self.backend.housekeeping / "scratch" / f"{recipe.name}-{recipe.version}"

    def _checked_manifest(self, ref: ArtifactRef) -> dict[str, Any]:
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
        return json.loads(data)


def _ref(root: str, name: str, version: str, manifest: bytes) -> ArtifactRef:
    counts: Mapping[str, int] = json.loads(manifest)["counts"]
    return ArtifactRef(name, version, f"{root}/{name}/{version}", hashlib.sha256(manifest).hexdigest(), counts)


def _write_manifest(path: Path, recipe: Recipe, counts: Mapping[str, int]) -> None:
    files = {
        file.relative_to(path).as_posix(): {"sha256": _sha256(file), "bytes": file.stat().st_size}
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }
    manifest = {"schema": SCHEMA_VERSION, "version": recipe.version, "recipe": recipe.to_json()}
    (path / MANIFEST).write_text(canonical_json({**manifest, "counts": dict(counts), "files": files}) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _staging(housekeeping: Path, recipe: Recipe) -> AbstractContextManager[Path]:
    return _Staging(housekeeping / "staging", f"{recipe.name}-{recipe.version}-pid{os.getpid()}-")


class _Staging:
    """A private directory that is gone afterwards, whatever happens."""

    def __init__(self, parent: Path, prefix: str) -> None:
        self._parent, self._prefix = parent, prefix

    def __enter__(self) -> Path:
        try:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._path = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._parent))
        except OSError as error:
            raise StoreError(
                f"Cannot write to the store at {self._parent}: {error.strerror}. "
                "Give write permission, or set VLM_STORE."
            ) from error
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _remove_dead_staging(housekeeping: Path) -> None:
    """Drop what killed runs of this machine left behind."""
    for path in (housekeeping / "staging").glob("*-pid*-*"):
        pid = path.name.rsplit("-pid", 1)[1].split("-", 1)[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _open_backend(root: str) -> Backend:
    if root.startswith("s3://"):
        from vlm_assets.store_s3 import S3Backend

        return S3Backend(root)
    if "://" in root:
        raise ConfigError(f"VLM_STORE is {root!r}; it takes a local path or s3://bucket/prefix.")
    return LocalBackend(Path(root).expanduser().absolute())


class LocalBackend:
    """Artifacts on a local or shared file system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)
        self.housekeeping = root / HOUSEKEEPING

    def read_manifest(self, name: str, version: str) -> bytes | None:
        """See Backend."""
        try:
            return (self.root / name / version / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def publish(self, staged: Path, name: str, version: str) -> bool:
        """One rename: a directory of that name either is not there, or is whole."""
        final = self.root / name / version
        final.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o755)
        try:
            staged.rename(final)
        except OSError:
            if self.read_manifest(name, version) is not None:
                return False
            raise
        return True

    def local_directory(self, name: str, version: str) -> Path:
        """See Backend."""
        return self.root / name / version

    def read_text(self, key: str) -> str | None:
        """See Backend."""
        try:
            return (self.root / key).read_text()
        except FileNotFoundError:
            return None

    def write_text(self, key: str, text: str, *, only_if_absent: bool = False) -> bool:
        """Written beside, then renamed (or hard-linked, which fails if the name is taken)."""
        path = self.root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
            fresh.write_text(text)
        except OSError as error:
            raise StoreError(
                f"Cannot write {path}: {error.strerror}. Give write permission, or set VLM_STORE."
            ) from error
        if not only_if_absent:
            fresh.replace(path)
            return True
        try:
            os.link(fresh, path)
        except FileExistsError:
            return False
        finally:
            fresh.unlink()
        return True

    def list_keys(self, prefix: str) -> list[str]:
        """See Backend."""
        folder = self.root / prefix
        return sorted(file.name for file in folder.glob("*") if file.is_file() and not file.name.startswith("."))
