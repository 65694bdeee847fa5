"""The data registry, a git repository in which DVC tracks snapshots and shards. Off while VLM_DVC_REGISTRY is unset."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlm_assets.data.registry_commands import find_dvc, no_dvc, run_dvc, run_git
from vlm_assets.errors import ConfigError, RegistryError
from vlm_assets.manifest import MANIFEST
from vlm_assets.s3_errors import without_credentials

REGISTRY_ENV = "VLM_DVC_REGISTRY"
COMMITTER = "vlm-captioning"  # where git knows nobody, as in a container


@dataclass(frozen=True)
class Tracked:
    """An artifact as the registry holds it."""

    hash: str  # DVC's: md5 of the list of files and their md5s, ends in ".dir"
    revision: str  # the registry's git commit
    remote: str  # URL that it was pushed to; "" without a remote

    def to_metadata(self) -> dict[str, str]:
        """As the asset shows it."""
        return {
            "dvc_hash": self.hash,
            "dvc_revision": self.revision,
            "dvc_remote": self.remote or "none: not pushed, the registry has no default remote",
        }


def open_registry() -> "Registry | None":
    """The registry of VLM_DVC_REGISTRY, or None if it is unset. ConfigError lists all that is wrong with it."""
    path = os.environ.get(REGISTRY_ENV)
    if not path:
        return None
    root = Path(path).expanduser().absolute()
    dvc = find_dvc()
    faults = [] if dvc else [no_dvc()]
    if not root.is_dir():
        faults.append(f"{REGISTRY_ENV} is {str(root)!r}, which is no directory.")
    elif not (root / ".git").exists() or not (root / ".dvc").is_dir():
        faults.append(
            f"{REGISTRY_ENV} is {str(root)!r}, which is not the root of a git repository with DVC. "
            f"Make it one: cd {root} && git init && dvc init && git commit -m 'Start' "
            "&& dvc remote add -d storage s3://bucket/dvc && git commit -am 'Remote'"
        )
    if faults:
        raise ConfigError(" ".join(faults))
    return Registry(root, dvc)


class Registry:
    """A git repository with DVC at `root`; each artifact has one folder in it, each version one commit."""

    def __init__(self, root: Path, dvc: str) -> None:
        self.root, self.dvc = root, dvc

    def folder(self, name: str) -> Path:
        """Where the artifact's files are, as far as they are checked out."""
        return self.root / name

    def track(self, name: str, directory: Path, message: str, log: Callable[[str], object]) -> Tracked:
        """`dvc add`, `dvc push` and `git commit` of the artifact's directory; a version that is there stays as it is.

        Pushed before it is committed: no commit ever names data that the remote lacks. If anything fails, git's
        history is untouched and the next call goes on.
        """
        with self._locked():
            if not self._holds(name, directory):
                self._check_on_branch(name)
                log(f"dvc add {name} in {self.root}")
                self._place(name, directory)
                run_dvc(self.dvc, self.root, "add", name)
            remote = self._push(name, log)
            revision = self._commit(name, message)
            return Tracked(self._hash((self.root / f"{name}.dvc").read_text()), revision, remote)

    def fetch(self, name: str, revision: str, target: Path) -> Tracked:
        """Copy the artifact of a git revision to `target`, from the cache or the remote; the checkout stays."""
        commit = run_git(self.root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", check=False).strip()
        if not commit:
            known = run_git(self.root, "log", "--oneline", "-5", "--", f"{name}.dvc", check=False)
            latest = ", ".join(line.split()[0] for line in known.splitlines()) or "none"
            raise RegistryError(
                f"{self.root} has no git revision {revision!r}. The last ones with {name}: {latest}. "
                "Set source.registry.revision to one of them, or to a tag."
            )
        pointer = run_git(self.root, "show", f"{commit}:{name}.dvc", check=False)
        if not pointer:
            raise RegistryError(f"Revision {revision} of {self.root} holds no {name}.dvc. Set another revision.")
        run_dvc(self.dvc, self.root, "get", str(self.root), name, "--rev", commit, "-o", str(target))
        return Tracked(self._hash(pointer), commit, self._remote())

    def held(self, name: str) -> Tracked:
        """The artifact that is checked out."""
        pointer = self.root / f"{name}.dvc"
        if not pointer.is_file():
            raise RegistryError(f"{self.root} holds no {name}.dvc. Check out a revision that has it.")
        revision = run_git(self.root, "log", "-1", "--format=%H", "--", pointer.name).strip()
        return Tracked(self._hash(pointer.read_text()), revision, self._remote())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One run at a time; the lock goes with the process."""
        try:
            file = (self._work_folder() / "vlm.lock").open("w")
        except OSError as error:
            raise self._not_writable(error) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _work_folder(self) -> Path:
        """DVC's own; git ignores it, so that a fresh clone lacks it."""
        folder = self.root / ".dvc" / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _not_writable(self, error: OSError) -> RegistryError:
        return RegistryError(
            f"Cannot write to the registry {self.root}: {error.strerror}. Nothing is lost: the artifact is in the "
            f"store. Give write permission, or set {REGISTRY_ENV} to a clone of it, and materialize again."
        )

    def _holds(self, name: str, directory: Path) -> bool:
        """Whether these very files are checked out and committed."""
        manifest = self.folder(name) / MANIFEST
        if not manifest.is_file() or manifest.read_bytes() != (directory / MANIFEST).read_bytes():
            return False
        if self._is_changed(name):
            return False
        return run_dvc(self.dvc, self.root, "status", "--json", f"{name}.dvc").strip() in ("", "{}")

    def _check_on_branch(self, name: str) -> None:
        if not run_git(self.root, "symbolic-ref", "-q", "HEAD", check=False).strip():
            raise RegistryError(
                f"{self.root} is on no branch (an old revision is checked out), and this {name} is another version: "
                f"its commit would belong to nothing. Go back to a branch: git -C {self.root} switch main"
            )

    def _place(self, name: str, directory: Path) -> None:
        """Put links to the files where DVC will track them; DVC breaks links when it adds, unless told otherwise."""
        target = self.folder(name)
        if target.exists() and not (target / MANIFEST).is_file() and any(target.iterdir()):
            raise RegistryError(f"{target} holds something that is no {name}. Move it away, or name another registry.")
        work = Path(tempfile.mkdtemp(dir=self._work_folder(), prefix="vlm-"))
        try:
            _link_tree(directory, work / "new")
            if target.exists():
                target.rename(work / "old")
            (work / "new").rename(target)
        except OSError as error:
            raise self._not_writable(error) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _push(self, name: str, log: Callable[[str], object]) -> str:
        url = self._remote()
        if url:
            log(f"dvc push {name} to {url}")
            run_dvc(self.dvc, self.root, "push", f"{name}.dvc", remote=url)
        else:
            log(f"{self.root} has no default remote: {name} is not pushed. Add one: dvc remote add -d NAME URL")
        return url

    def _remote(self) -> str:
        """URL of the default remote, or an empty string. (`dvc remote list` breaks long lines.)"""
        lines = run_dvc(self.dvc, self.root, "config", "--list").splitlines()
        settings: dict[str, str] = {name: value for name, _, value in (line.partition("=") for line in lines)}
        return without_credentials(settings.get(f"remote.{settings.get('core.remote')}.url", ""))

    def _commit(self, name: str, message: str) -> str:
        """Commit the pointer if it changed; returns the commit that holds it."""
        pointer = f"{name}.dvc"
        if self._is_changed(name):
            paths = [pointer, ".gitignore"]
            run_git(self.root, "add", "--", *paths)
            run_git(self.root, *self._identity(), "commit", "--quiet", "-m", message, "--", *paths)
        return run_git(self.root, "log", "-1", "--format=%H", "--", pointer).strip()

    def _is_changed(self, name: str) -> bool:
        """Whether the pointer differs from the last commit, or is not in it."""
        return bool(run_git(self.root, "status", "--porcelain", "--", f"{name}.dvc").strip())

    def _identity(self) -> list[str]:
        if run_git(self.root, "config", "user.email", check=False).strip() or os.environ.get("GIT_COMMITTER_EMAIL"):
            return []
        return ["-c", f"user.name={COMMITTER}", "-c", f"user.email={COMMITTER}@localhost"]

    def _hash(self, pointer: str) -> str:
        document: dict[str, Any] = yaml.safe_load(pointer)
        return str(document["outs"][0]["md5"])


def _link_tree(source: Path, target: Path) -> None:
    """Hard links where the file system allows them, else copies."""
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        there = target / file.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, there)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            shutil.copyfile(file, there)
