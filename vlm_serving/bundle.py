"""A servable model: one directory with weights, tokenizer, preprocessing contract, golden vectors and lineage.

Sealed with `bundle.json`, which holds the sha256 of every other file; the bundle's version is the digest of those. A
file that the seal does not list is refused: libraries load other things when others lie there (`adapter_config.json`).
Only safetensors and JSON are ever read, so opening a bundle runs no code from it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_serving.errors import BundleError
from vlm_serving.generation import DEFAULT_OPTIONS, GenerationOptions
from vlm_serving.preprocessing import PreprocessingContract

SEAL = "bundle.json"
CONTRACT = "contract.json"
GOLDEN = "golden.json"
REFERENCE = "reference.parquet"
WORDS = "words.json"  # of the captions that it was trained on, sorted: what else it says is unknown
GENERATION = "generation.json"
CARD = "README.md"
SCHEMA_VERSION = 1
TOKENIZER = "tokenizer.json"
REQUIRED = ("model.safetensors", "config.json", TOKENIZER, CONTRACT)
WEIGHTS = ".safetensors"  # the only large files
VERSION_HEX_DIGITS = 16


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `lineage` tells what made it: data, code and base model versions."""

    path: Path
    version: str
    contract: PreprocessingContract
    lineage: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""  # words that the model was trained to continue, such as "a picture of"; "" = none
    generation: GenerationOptions = DEFAULT_OPTIONS  # how it was measured, and captions when nobody says otherwise


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


def write_generation(path: Path, prompt: str, options: GenerationOptions) -> None:
    """Write how the model wants to be asked into a bundle directory that is being made."""
    (path / GENERATION).write_text(json.dumps({"prompt": prompt, **options.to_json()}, indent=1) + "\n")


def read_generation(path: Path) -> tuple[str, GenerationOptions]:
    """Prompt and options of a bundle directory; "" and the defaults where none were written."""
    file = path / GENERATION
    settings = _read_json(file) if file.is_file() else {}
    return str(settings.pop("prompt", "")), GenerationOptions.from_json(settings)


def seal_bundle(path: Path, lineage: Mapping[str, Any]) -> Bundle:
    """Write `bundle.json` last: from here on the directory is a bundle and must not change."""
    missing = [name for name in REQUIRED if not (path / name).is_file()]
    if missing:
        raise BundleError(f"Cannot seal {path}: missing {', '.join(missing)}.")
    contract = read_contract(path)
    _check_tokenizer(path, contract)
    files = {name: sha256_of(path / name) for name in sorted(_file_names(path))}
    seal: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "version": _version(files),
        "files": files,
        "lineage": dict(lineage),
        "lineage_sha256": _digest(lineage),
    }
    (path / SEAL).write_text(json.dumps(seal, indent=1) + "\n")
    return Bundle(path, seal["version"], contract, lineage, *read_generation(path))


def open_bundle(path: Path | str, verify: bool = True) -> Bundle:
    """Open a sealed bundle: its files are those of the seal and no others, each as it was sealed.

    Without `verify` the bytes of the weights are taken on trust (1 GB takes about a second); all else is checked.
    Raises BundleError naming the file that is missing, altered or unexpected.
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"There is no model bundle at {path}. Give the directory that holds {SEAL}.")
    seal = _read_json(path / SEAL)
    if seal.get("schema") != SCHEMA_VERSION:
        raise BundleError(f"{path} has bundle schema {seal.get('schema')!r}; this version reads {SCHEMA_VERSION}.")
    _check_seal(path, seal)
    _check_files(path, seal["files"], weights=verify)
    contract = read_contract(path)
    _check_tokenizer(path, contract)
    return Bundle(path, seal["version"], contract, seal["lineage"], *read_generation(path))


def _check_seal(path: Path, seal: Mapping[str, Any]) -> None:
    if _version(seal["files"]) != seal["version"]:
        raise BundleError(f"{SEAL} in {path} was altered: its files do not give version {seal['version']}.")
    lineage_sha256 = seal.get("lineage_sha256")  # bundles written before this existed have none
    if lineage_sha256 is not None and _digest(seal["lineage"]) != lineage_sha256:
        raise BundleError(f"{SEAL} in {path} was altered: its lineage is not the one that was sealed. Fetch it again.")


def _check_files(path: Path, digests: Mapping[str, str], *, weights: bool) -> None:
    present = _file_names(path)
    for name in digests:
        if name not in present:
            raise BundleError(f"The bundle {path} lacks {name}. Fetch it again.")
    unlisted = sorted(present - set(digests))
    if unlisted:
        raise BundleError(
            f"The bundle {path} holds files that it was not sealed with: {', '.join(unlisted)}. They could change what "
            "is loaded: remove them, or fetch the bundle again."
        )
    for name, digest in digests.items():
        if (weights or not name.endswith(WEIGHTS)) and sha256_of(path / name) != digest:
            raise BundleError(f"{name} in the bundle {path} was altered: its sha256 is not {digest[:12]}…")


def _check_tokenizer(path: Path, contract: PreprocessingContract) -> None:
    """The contract names the tokenizer that captions were read with; another one gives the ids other meanings."""
    found = sha256_of(path / TOKENIZER)
    if found != contract.tokenizer_sha256:
        raise BundleError(
            f"{TOKENIZER} in {path} is not the contract's: its sha256 is {found[:12]}…, {CONTRACT} says "
            f"{contract.tokenizer_sha256[:12] or 'none'}. Use the bundle as it was written."
        )


def _file_names(path: Path) -> set[str]:
    """Every file below `path` but the seal, relative to it."""
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file() and file != path / SEAL}


def _version(files: Mapping[str, str]) -> str:
    return _digest(dict(files))[:VERSION_HEX_DIGITS]


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(dict(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{path.parent} is not a model bundle: {path.name} is missing.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not readable JSON ({error}). Fetch the bundle again.") from error
