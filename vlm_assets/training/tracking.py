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

from vlm_assets.errors import TrackingError


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

    def log_directory(self, path: Path) -> str:
        """Keep a directory with the run, under its own name; returns where it is now, as the registry takes it."""
        self.mlflow.log_artifacts(str(path), path.name)
        return str(self.mlflow.get_artifact_uri(path.name))


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
        end_orphans(context.instance, experiment)
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


def end_orphans(instance: dg.DagsterInstance, experiment: str) -> None:
    """End the runs that MLflow believes to go on though their Dagster run is over: the process was killed.

    Runs of Dagster instances that this one does not know are left alone. The tracking URI is set already.
    """
    import mlflow

    client = mlflow.MlflowClient()
    known = client.get_experiment_by_name(experiment)
    running = client.search_runs([known.experiment_id], "attributes.status = 'RUNNING'") if known else []
    for run in running:
        owner = instance.get_run_by_id(run.data.tags.get("dagster_run", "none"))
        if owner is not None and owner.is_finished:
            status = "FAILED" if owner.status is dg.DagsterRunStatus.FAILURE else "KILLED"
            client.set_terminated(run.info.run_id, status)
