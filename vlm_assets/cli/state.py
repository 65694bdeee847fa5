"""What a deployment on one machine has to keep: which directories, in which order, and what lies elsewhere."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlm_assets.cli.settings import LOGS
from vlm_assets.resources import home, request_log_dir, store_root, tracking_uri
from vlm_assets.store import HOUSEKEEPING

# logs of `make up`, staging, and what belongs to a database that is copied through SQLite itself
PASSED_OVER = {LOGS, "logs", HOUSEKEEPING, "wandb"}
DATABASE_SUFFIX = ".db"
URL_PASSWORD = re.compile(r"(://[^:/@]*:)[^@]*@")
COMPANIONS = ("-wal", "-shm", "-journal")
# first whoever names things, then what they name: artifacts are published before anything refers to them, so every
# reference in the copy finds its artifact there, whatever runs meanwhile
NAMING = ("ledger", "refs")


@dataclass(frozen=True)
class Part:
    """One directory of the state, under the name that it has in a backup."""

    name: str
    directory: Path


def local_parts() -> list[Part]:
    """The home, and the store and the request log where they are directories outside of it."""
    parts = [Part("home", home())]
    store = store_root()
    others = [] if is_remote(store) else [Part("store", Path(store).absolute())]
    for part in (*others, Part("request_log", request_log_dir().absolute())):
        if not part.directory.is_relative_to(home()):
            parts.append(part)
    return parts


def elsewhere() -> dict[str, str]:
    """What another server keeps, or lies outside of the parts, and is not in a backup: its own tools keep that."""
    found = {"VLM_STORE": store_root()} if is_remote(store_root()) else {}
    if not tracking_uri().startswith(f"sqlite:///{home()}/"):
        found["MLFLOW_TRACKING_URI"] = URL_PASSWORD.sub(r"\1***@", tracking_uri())
    settings = home() / "dagster.yaml"
    if settings.is_file() and "\n  postgres:" in settings.read_text():
        found["Dagster's storage"] = f"the database in {settings}"
    return found


def is_remote(address: str) -> bool:
    """Whether an address names a server, not a file of this machine."""
    return "://" in address and not address.startswith(("sqlite:", "file:"))


def files_of(directory: Path) -> Iterator[Path]:
    """Every file to keep, databases first, then the ledger and references, then all else.

    Looks anew for each: what a database names may have been made after the first look.
    """
    for wanted in range(3):
        yield from sorted(path for path in _walk(directory) if _rank(path, directory) == wanted)


def _rank(path: Path, directory: Path) -> int:
    if path.suffix == DATABASE_SUFFIX:
        return 0
    return 1 if any(folder in NAMING for folder in path.relative_to(directory).parts[:2]) else 2


def _walk(directory: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(directory):
        folders[:] = [one for one in folders if one not in PASSED_OVER]
        yield from (Path(folder) / one for one in files if not one.endswith(COMPANIONS))
