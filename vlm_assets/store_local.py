"""The store on a local or shared disk: one rename publishes."""

import os
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from vlm_assets.disk import room_needed
from vlm_assets.errors import StoreError
from vlm_assets.manifest import MANIFEST
from vlm_assets.store import HOUSEKEEPING


class LocalBackend:
    """Artifacts on a local or shared file system."""

    disk_setting = "VLM_STORE"

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

    def address(self, name: str, version: str, manifest: bytes) -> str:
        """See Backend."""
        return f"{self.uri}/{name}/{version}"

    def publish(self, built: Path, name: str, version: str) -> bool:
        """One rename: a directory of that name either is not there, or is whole."""
        final = self.root / name / version
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            built.rename(final)
        except OSError as error:
            if self.read_manifest(name, version) is not None:
                return False
            raise StoreError(
                f"Cannot publish {final}: {error.strerror}. Give write permission, or remove what is in the way."
            ) from error
        return True

    def local_directory(self, name: str, version: str, manifest: bytes) -> Path:
        """See Backend."""
        return self.root / name / version

    def local_file(self, name: str, version: str, manifest: bytes, path: str) -> AbstractContextManager[Path]:
        """See Backend."""
        return nullcontext(self.local_directory(name, version, manifest) / path)

    def read_text(self, key: str) -> str | None:
        """See Backend."""
        try:
            return (self.root / key).read_text()
        except FileNotFoundError:
            return None

    def write_text(self, key: str, text: str, *, only_if_absent: bool = False) -> bool:
        """Written beside, then renamed (or hard-linked, which fails if the name is taken)."""
        path = self.root / key
        fresh = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            self._write(fresh, text)
            if not only_if_absent:
                fresh.replace(path)
                return True
            os.link(fresh, path)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
        return True

    def _write(self, path: Path, text: str) -> None:
        try:
            with room_needed(path.parent, self.disk_setting):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        except OSError as error:
            raise StoreError(
                f"Cannot write {path.parent}: {error.strerror}. Give write permission, or set VLM_STORE."
            ) from error

    def list_keys(self, prefix: str) -> list[str]:
        """See Backend."""
        folder = self.root / prefix
        return sorted(file.name for file in folder.glob("*") if file.is_file() and not file.name.startswith("."))
