"""A servable model: one directory with weights, tokenizer, preprocessing contract, golden vectors and lineage.

Sealed with `bundle.json`, which holds the sha256 of every other file; the bundle's version is the digest of those. Only
safetensors and JSON are ever read, so opening a bundle runs no code from it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_serving.errors import BundleError
from vlm_serving.preprocessing import PreprocessingContract

SEAL = "bundle.json"
CONTRACT = "contract.json"
GOLDEN = "golden.json"
REFERENCE = "reference.parquet"
GENERATION = "generation.json"
CARD = "README.md"
SCHEMA_VERSION = 1
REQUIRED = ("model.safetensors", "config.json", "tokenizer.json", CONTRACT)
VERSION_HEX_DIGITS = 16


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `lineage` tells what made it: data, code and base model versions."""

    path: Path
    version: str
    contract: PreprocessingContract
    lineage: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""  # words that the model was trained to continue, such as "a picture of"; "" = none


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_contract(path: Path) -> PreprocessingContract:
    """The preprocessing contract of a bundle directory, its own digest checked."""
    return PreprocessingContract.from_json(_read_json(path / CONTRACT))


def write_contract(path: Path, contract: PreprocessingContract) -> None:
    """Write the contract into a bundle directory that is being made."""
    (path / CONTRACT).write_text(json.dumps(contract.to_json(), indent=1) + "\n")


def write_generation(path: Path, prompt: str) -> None:
    """Write how the model wants to be asked into a bundle directory that is being made."""
    (path / GENERATION).write_text(json.dumps({"prompt": prompt}) + "\n")


def read_prompt(path: Path) -> str:
    """The prompt of a bundle directory; "" where none was written."""
    file = path / GENERATION
    return str(_read_json(file).get("prompt", "")) if file.is_file() else ""


def seal_bundle(path: Path, lineage: Mapping[str, Any]) -> Bundle:
    """Write `bundle.json` last: from here on the directory is a bundle and must not change."""
    missing = [name for name in REQUIRED if not (path / name).is_file()]
    if missing:
        raise BundleError(f"Cannot seal {path}: missing {', '.join(missing)}.")
    files = _file_digests(path)
    version = _version(files)
    seal = {"schema": SCHEMA_VERSION, "version": version, "files": files, "lineage": dict(lineage)}
    (path / SEAL).write_text(json.dumps(seal, indent=1) + "\n")
    return Bundle(path, version, read_contract(path), lineage, read_prompt(path))


def open_bundle(path: Path | str, verify: bool = True) -> Bundle:
    """Open a sealed bundle; with `verify` every file's sha256 is compared (1 GB takes about a second).

    Raises BundleError naming the file that is missing, altered or unexpected.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"There is no model bundle at {path}. Give the directory that holds {SEAL}.")
    seal = _read_json(path / SEAL)
    if seal.get("schema") != SCHEMA_VERSION:
        raise BundleError(f"{path} has bundle schema {seal.get('schema')!r}; this version reads {SCHEMA_VERSION}.")
    if verify:
        _verify(path, seal)
    return Bundle(path, seal["version"], read_contract(path), seal["lineage"], read_prompt(path))


def _verify(path: Path, seal: Mapping[str, Any]) -> None:
    for name, digest in seal["files"].items():
        file = path / name
        if not file.is_file():
            raise BundleError(f"The bundle {path} lacks {name}. Fetch it again.")
        if sha256_of(file) != digest:
            raise BundleError(f"{name} in the bundle {path} was altered: its sha256 is not {digest[:12]}…")
    if _version(seal["files"]) != seal["version"]:
        raise BundleError(f"{SEAL} in {path} was altered: its files do not give version {seal['version']}.")


def _file_digests(path: Path) -> dict[str, str]:
    files = (file for file in path.rglob("*") if file.is_file() and file.name != SEAL)
    return {file.relative_to(path).as_posix(): sha256_of(file) for file in sorted(files)}


def _version(files: Mapping[str, str]) -> str:
    text = json.dumps(dict(files), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:VERSION_HEX_DIGITS]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path.parent} is not a model bundle: {path.name} is missing.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not readable JSON ({error}). Fetch the bundle again.") from error
