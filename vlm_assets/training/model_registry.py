"""MLflow's model registry: a version for every candidate, and the alias of the champion.

Bundles are registered as plain files, not as an MLflow flavor: `models:/captioner@champion` is one of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import TrackingError
from vlm_assets.training.tracking import TrackedRun

MODEL_NAME = "captioner"
VERSION_TAG, BUNDLE_TAG = "artifact_version", "bundle_version"
CHAMPION_ALIAS = "champion"


@dataclass(frozen=True)
class Registered:
    """A version in MLflow's registry and the artifact that it stands for."""

    number: str
    artifact_version: str


def register_bundle(run: TrackedRun, ref: ArtifactRef, bundle: Path, bundle_version: str) -> str:
    """Let MLflow find the bundle, and give it a version in the registry if it has none; returns its number."""
    found = find_registered(run.uri, ref.version)
    if found is not None:
        return found.number
    source = _keep(run, ref, bundle)
    run.set_tags({"bundle": source})
    return register_version(run.uri, ref, source, bundle_version, run.run_id)


def _keep(run: TrackedRun, ref: ArtifactRef, bundle: Path) -> str:
    """Where the bundle lies for MLflow: in a store that everybody reaches (S3) as it is, else uploaded to the run.

    A server takes no path of this machine: only what lies in the run's own artifacts, or has an address of its own.
    """
    if "://" in ref.uri:
        return f"{ref.uri.rstrip('/')}/{bundle.name}"
    with _clear(run.uri):
        return run.log_directory(bundle)


def register_version(uri: str, ref: ArtifactRef, source: str, bundle_version: str, run_id: str) -> str:
    """Create the registry version that points at the bundle in `source`; returns its number."""
    with _clear(uri) as client:
        _create_model(client)
        tags = {VERSION_TAG: ref.version, BUNDLE_TAG: bundle_version}
        return str(client.create_model_version(MODEL_NAME, source=source, run_id=run_id, tags=tags).version)


def find_registered(uri: str, version: str) -> Registered | None:
    """The registry version of the artifact, or of the bundle, that has this version."""
    with _clear(uri) as client:
        for found in client.search_model_versions(f"name='{MODEL_NAME}'"):
            if version in (found.tags.get(VERSION_TAG), found.tags.get(BUNDLE_TAG)):
                return Registered(str(found.version), found.tags[VERSION_TAG])
    return None


def set_champion_alias(uri: str, artifact_version: str) -> str:
    """Point the registry's `champion` at the version made from this artifact; returns its number."""
    found = find_registered(uri, artifact_version)
    if found is None:
        raise TrackingError(f"MLflow at {uri} has no version of {MODEL_NAME!r} for artifact {artifact_version}.")
    with _clear(uri) as client:
        client.set_registered_model_alias(MODEL_NAME, CHAMPION_ALIAS, found.number)
    return found.number


def _create_model(client: Any) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _clear(uri: str) -> Iterator[Any]:
    """A client of the registry at `uri`; what MLflow raises becomes a TrackingError."""
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow's registry at {uri} does not take the model: {error}. The model itself is in the store; once that "
            "is mended, materialize finetuned_model again: nothing is trained twice."
        ) from error
