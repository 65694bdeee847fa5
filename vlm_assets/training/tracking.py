"""Experiment tracking: one MLflow run per Dagster run, through dagster-mlflow, with an honest end.

dagster-mlflow 0.29 leaves a failed run FINISHED (MLflow 3 renamed the exit hook it unregisters): set here.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.errors import TrackingError

MODEL_NAME = "captioner"
VERSION_TAG = "artifact_version"
CHAMPION_ALIAS = "champion"


@dataclass(frozen=True)
class TrackedRun:
    """What a stage may record. `mlflow` is dagster-mlflow's object: all of mlflow's own functions."""

    mlflow: Any
    run_id: str
    uri: str
    kind: str = "mlflow"

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; those already recorded in this run are left alone (MLflow refuses to change them)."""
        known = self.mlflow.active_run().data.params
        self.mlflow.log_params({key: value for key, value in params.items() if key not in known})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run can be found by: versions of data and code, the Dagster run."""
        self.mlflow.set_tags(dict(tags))

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        """Record one point of a curve."""
        self.mlflow.log_metric(name, value, step=step)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Record final figures."""
        self.mlflow.log_metrics(dict(metrics))

    def log_artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        self.mlflow.log_artifact(str(path))


@contextmanager
def tracked_run(context: dg.AssetExecutionContext, uri: str, experiment: str, stage: str) -> Iterator[TrackedRun]:
    """Open or reopen the MLflow run of this Dagster run; FINISHED at the end, FAILED or KILLED if the body raises."""
    mlf = _open(context, uri, experiment)
    run_id = mlf.active_run().info.run_id
    try:
        mlf.set_tags({"stage": stage, "dagster_run": context.run.run_id})
        yield TrackedRun(mlf, run_id, uri)
    except KeyboardInterrupt:
        mlf.end_run(status="KILLED")
        raise
    except BaseException:
        mlf.end_run(status="FAILED")
        raise
    mlf.end_run(status="FINISHED")


def _open(context: dg.AssetExecutionContext, uri: str, experiment: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import logging
    import warnings

    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    # schema migrations of a fresh database, line by line; the start and end of system metrics; a GPU that is not there
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.system_metrics"):
        logging.getLogger(name).setLevel(logging.WARNING if name != "mlflow.system_metrics" else logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    from dagster_mlflow.resources import MlFlow
    from mlflow.exceptions import MlflowException

    settings = {
        "experiment_name": experiment,
        "mlflow_tracking_uri": uri,
        "extra_tags": {"dagster_job": context.run.job_name},
    }
    facts = SimpleNamespace(log=context.log, dagster_run=context.run, run_id=context.run_id, resource_config=settings)
    try:
        prepare_experiment(uri, experiment)
        return MlFlow(facts)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow at {uri} cannot be used: {error}. Start it, or set MLFLOW_TRACKING_URI "
            "(default: a local SQLite file)."
        ) from error


def prepare_experiment(uri: str, experiment: str) -> None:
    """Create the experiment with its artifacts beside the database: the default would be the current directory."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        folder.mkdir(parents=True, exist_ok=True)
        if mlflow.get_experiment_by_name(experiment) is None:
            mlflow.create_experiment(experiment, artifact_location=(folder / "mlartifacts").as_uri())


def register_version(uri: str, ref: ArtifactRef, bundle: Path, bundle_version: str, run_id: str | None) -> str:
    """Find or create the registry version that points at the bundle in the store; returns its number."""
    import mlflow
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient()
    try:
        client.create_registered_model(MODEL_NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name='{MODEL_NAME}'"):
        if version.tags.get(VERSION_TAG) == ref.version:
            return str(version.version)
    tags = {VERSION_TAG: ref.version, "bundle_version": bundle_version}
    return str(client.create_model_version(MODEL_NAME, source=str(bundle), run_id=run_id, tags=tags).version)


@dataclass(frozen=True)
class Registered:
    """A version in MLflow's registry and the artifact that it stands for."""

    number: str
    artifact_version: str


def find_registered(uri: str, version: str) -> Registered | None:
    """The registry version of the artifact, or of the bundle, that has this version."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    for found in mlflow.MlflowClient().search_model_versions(f"name='{MODEL_NAME}'"):
        if version in (found.tags.get(VERSION_TAG), found.tags.get("bundle_version")):
            return Registered(str(found.version), found.tags[VERSION_TAG])
    return None


def set_champion_alias(uri: str, artifact_version: str) -> str:
    """Point the registry's `champion` at the version made from this artifact; returns its number."""
    import mlflow

    found = find_registered(uri, artifact_version)
    if found is None:
        raise TrackingError(f"MLflow at {uri} has no version of {MODEL_NAME!r} for artifact {artifact_version}.")
    mlflow.MlflowClient().set_registered_model_alias(MODEL_NAME, CHAMPION_ALIAS, found.number)
    return found.number
