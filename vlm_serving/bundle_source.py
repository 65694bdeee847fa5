"""Where a bundle comes from: a directory, MLflow's registry (`models:/NAME@ALIAS`) or a store (`s3://…`).

What is not a directory is fetched once into `$VLM_BUNDLE_CACHE`, sealed as it is, and opened from there.
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_serving.bundle import SEAL, open_bundle
from vlm_serving.errors import BundleError, NotRegisteredError

REGISTRY = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")
MAX_RETRIES = "2"  # MLflow's own 7 take four minutes to say that nobody is there
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model; a model without this alias
BUNDLE_TAG = "bundle_version"  # of a version in MLflow's registry; written by whoever registers bundles


@dataclass(frozen=True)
class Pinned:
    """A bundle that will not be another one tomorrow: an alias is replaced by the number it stands for now."""

    source: str
    version: str


def is_directory(source: str) -> bool:
    """Whether `source` names a directory of this machine rather than an address."""
    return "://" not in source and not source.startswith("models:/")


def pin_bundle(source: str) -> Pinned:
    """What `source` stands for at this moment, for all replicas to load the same. Raises BundleError."""
    if is_directory(source):
        return Pinned(str(Path(source).resolve()), open_bundle(source).version)
    if not source.startswith("models:/"):
        return Pinned(source, open_bundle(local_bundle(source)).version)
    name, number, version = _registered(source)
    pinned = f"models:/{name}/{number}"
    return Pinned(pinned, version or open_bundle(local_bundle(pinned)).version)


def local_bundle(source: str, version: str = "") -> Path:
    """The directory that holds the bundle, fetched if it is not here yet; `open_bundle` verifies it.

    `version`, if known, finds one that was fetched before without asking anybody. Raises BundleError: what could not
    be had from where, and what to do.
    """
    if is_directory(source):
        return Path(source)
    if version and (kept := _cache() / version).is_dir():
        return kept
    if source.startswith("models:/"):
        name, number, tagged = _registered(source)
        if tagged and (kept := _cache() / tagged).is_dir():
            return kept
        return _fetch(source, f"models:/{name}/{number}")
    return _fetch(source, source)


def _cache() -> Path:
    return Path(os.environ.get("VLM_BUNDLE_CACHE") or Path(tempfile.gettempdir()) / f"vlm-bundles-{os.getuid()}")


def _fetch(source: str, address: str) -> Path:
    """Fetch into a hidden directory, verify, then give it its version as a name: readers see whole bundles only."""
    cache = _cache()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=".fetching-", dir=cache))
    try:
        fetched = _download(source, address, hidden)
        final = cache / open_bundle(fetched).version
        if not final.is_dir():
            fetched.rename(final)
        return final
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _download(source: str, address: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    try:
        path = Path(download_artifacts(artifact_uri=address, dst_path=str(folder), tracking_uri=_tracking_uri()))
    except Exception as error:  # whatever the store's own library raises
        raise BundleError(f"The bundle {source} cannot be fetched from {address}: {_first_line(error)}") from error
    if not (path / SEAL).is_file():
        raise BundleError(f"{address} is no model bundle: it has no {SEAL}. Give the address of the bundle itself.")
    return path


def _registered(source: str) -> tuple[str, str, str]:
    """Name, number and bundle version ("" if untagged) of a registered model."""
    match = REGISTRY.fullmatch(source)
    if match is None:
        raise BundleError(f"{source!r} names no registered model. Write models:/NAME@ALIAS or models:/NAME/NUMBER.")
    import mlflow
    from mlflow.exceptions import MlflowException

    name, uri = match["name"], _tracking_uri()
    try:
        client: Any = mlflow.MlflowClient(uri, uri)
        if match["alias"]:
            found = client.get_model_version_by_alias(name, match["alias"])
        else:
            found = client.get_model_version(name, match["number"])
        return name, str(found.version), str(found.tags.get(BUNDLE_TAG, ""))
    except (MlflowException, OSError) as error:
        missing = getattr(error, "error_code", "") in ABSENT
        raise (NotRegisteredError if missing else BundleError)(
            f"MLflow at {uri or mlflow.get_tracking_uri()} cannot tell what {source} is: {_first_line(error)} Set "
            "MLFLOW_TRACKING_URI to the server that has it, or give the bundle's directory."
        ) from error


def _tracking_uri() -> str | None:
    """MLflow's own variable, whatever address this process has been told besides."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", MAX_RETRIES)
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def _first_line(error: Exception) -> str:
    text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return text if text.endswith(".") else f"{text}."
