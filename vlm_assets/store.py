"""Artifacts: versioned directories that readers see whole or not at all.

An artifact lives at `<root>/<name>/<version>/`. Its files are written and hashed in a private place first; the manifest
is what makes it exist. On a local disk one rename publishes the directory, on S3 the manifest is put last and only if
none is there. Nobody looks for the newest: a version is the digest of the recipe, so equal recipes are built once.

What is built and not yet published (the network was away, the process was killed) is kept, and published by the next
run of the same recipe.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from vlm_assets.contracts import VERSION_HEX_DIGITS, ArtifactRef, Recipe, canonical_json, digest
from vlm_assets.disk import room_needed
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

    def address(self, name: str, version: str, manifest: bytes) -> str:
        """Where the artifact's files are: a path or URI that pandas, DuckDB and `datasets` take."""
        ...

    def publish(self, built: Path, name: str, version: str) -> bool:
        """Make the whole directory `built` the artifact; False if somebody else published it first."""
        ...

    def local_directory(self, name: str, version: str, manifest: bytes) -> Path:
        """The artifact's files and manifest on local disk."""
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
        return self._find(recipe.name, recipe.version)

    def build(self, recipe: Recipe, write: Callable[[Draft], object]) -> Built:
        """Reuse the artifact of this recipe, or let `write` fill a new one and publish it.

        If `write` raises, or the process dies, nothing is published and nothing that was there is touched.
        """

        def fill(staged: Path) -> None:
            draft = Draft(staged)
            write(draft)
            _write_manifest(staged, recipe, draft.counts)

        built = self._build(recipe.name, recipe.version, fill)
        shutil.rmtree(self._scratch_path(recipe), ignore_errors=True)
        return built

    def adopt(self, directory: Path, name: str) -> Built:
        """Publish a copy of an artifact from elsewhere (a data registry, another store) under its own version.

        Every byte is compared with the manifest in `directory` before; StoreError if it is not whole.
        """
        manifest = _foreign_manifest(directory, name)

        def fill(staged: Path) -> None:
            for path, entry in manifest["files"].items():
                (staged / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(directory / path, staged / path)
                if _sha256(staged / path) != entry["sha256"]:
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

    def verify(self, ref: ArtifactRef) -> None:
        """Compare the sha256 of every file with the manifest; StoreError names the first that differs."""
        path = self.directory(ref)
        for name, entry in self.manifest(ref)["files"].items():
            if _sha256(path / name) != entry["sha256"]:
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
        """A local working directory for this recipe that survives a killed run and goes when it is built."""
        path = self._scratch_path(recipe)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _scratch_path(self, recipe: Recipe) -> Path:
        return self.backend.housekeeping / "scratch" / f"{recipe.name}-{recipe.version}"

    def _find(self, name: str, version: str) -> ArtifactRef | None:
        manifest = self.backend.read_manifest(name, version)
        return None if manifest is None else _ref(self.backend, name, version, manifest)

    def _build(self, name: str, version: str, fill: Callable[[Path], object]) -> Built:
        found = self._find(name, version)
        if found is not None:
            return Built(found, self.directory(found), reused=True)
        _remove_dead_staging(self.backend.housekeeping)
        whole = self.backend.housekeeping / "unpublished" / f"{name}-{version}"
        if not whole.is_dir():
            with _staging(self.backend.housekeeping, name, version) as staged, room_needed(staged):
                fill(staged)
                _rename_unless_there(staged, whole)
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


def _foreign_manifest(directory: Path, name: str) -> dict[str, Any]:
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


def _staging(housekeeping: Path, name: str, version: str) -> AbstractContextManager[Path]:
    return _Staging(housekeeping / "staging", f"{name}-{version}-pid{os.getpid()}-")


def _rename_unless_there(staged: Path, whole: Path) -> None:
    """One rename; the directory that another process of the same recipe put there first stays."""
    whole.parent.mkdir(parents=True, exist_ok=True)
    staged.chmod(0o755)  # temporary directories are made for their owner only
    try:
        staged.rename(whole)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


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
    from vlm_assets.store_local import LocalBackend

    return LocalBackend(Path(root).expanduser().absolute())
