"""The outside world, as Dagster resources: the artifact store, the experiment tracker, the serving cluster.

Settings of a deployment come from the environment (`VLM_*`, or a library's own name); nothing is opened on import.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.contracts import ArtifactRef
from vlm_assets.dead_runs import end_dead_runs
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.run_config import check_run_config
from vlm_assets.store import Backend, Built, Store
from vlm_assets.training.model_registry import find_registered, register_bundle
from vlm_assets.training.tracking import TrackedRun, tracked_run
from vlm_assets.training.wandb_tracking import WandbRun, wandb_run

OPTIONAL = "optional"  # an input's metadata: its asset can do without a materialized parent


def home() -> Path:
    """The directory that holds local state: DAGSTER_HOME, or ./dagster_home."""
    return Path(os.environ.get("DAGSTER_HOME") or "dagster_home").absolute()


def store_root() -> str:
    """Where artifacts live: VLM_STORE (a path or s3://bucket/prefix), or `store` in the home."""
    return os.environ.get("VLM_STORE") or str(home() / "store")


def tracking_uri() -> str:
    """MLflow's store: MLFLOW_TRACKING_URI, or an SQLite file in the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def request_log_dir() -> Path:
    """Where serving writes its request log: VLM_REQUEST_LOG, or `request_log` in the home."""
    return Path(os.environ.get("VLM_REQUEST_LOG") or home() / "request_log")


class StoreResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """The artifact store. `root` empty: VLM_STORE, or `store` in the home."""

    root: str = ""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Before the run's first step: refuse settings that are wrong, and give back the places of runs that were
        killed, in whose pools this one would wait.
        """
        if context.run is not None:
            check_run_config(context.run.run_config)
        if context.instance is not None:
            end_dead_runs(context.instance)

    def open(self) -> Store:
        """The store, ready to read and build."""
        return Store(self.root or store_root())


class TrackerResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """MLflow through dagster-mlflow, imported on first use. `uri` empty: MLFLOW_TRACKING_URI, or SQLite in the home.

    `kind` wandb (or VLM_TRACKER=wandb) sends runs to Weights & Biases; the model registry stays MLflow's.
    """

    uri: str = ""
    experiment: str = "captioner"
    kind: str = ""

    def address(self) -> str:
        """The tracking URI in force."""
        return self.uri or tracking_uri()

    @contextmanager
    def run(self, context: dg.AssetExecutionContext, stage: str) -> Iterator[TrackedRun | WandbRun]:
        """The tracker's run of this Dagster run, active for `stage`; FAILED if the body raises."""
        kind = self.kind or os.environ.get("VLM_TRACKER") or "mlflow"
        if kind not in ("mlflow", "wandb"):
            raise ConfigError(f"VLM_TRACKER is {kind!r}; it takes mlflow or wandb.")
        if kind == "wandb":
            with wandb_run(context, self.experiment, stage, home()) as run:
                yield run
            return
        with tracked_run(context, self.address(), self.experiment, stage) as run:
            yield run

    def register(self, context: dg.AssetExecutionContext, built: Built, bundle_version: str) -> str:
        """The registry version that stands for the artifact's bundle, created once; returns its number.

        The MLflow run of this Dagster run keeps the bundle, be there W&B or not; it ends FAILED if it cannot.
        """
        found = find_registered(self.address(), built.ref.version) if built.reused else None
        if found is not None:
            return found.number
        with tracked_run(context, self.address(), self.experiment, built.ref.name) as run:
            return register_bundle(run, built.ref, built.path / "bundle", bundle_version)


class RefIOManager(dg.ConfigurableIOManager):
    """Artifact references as small JSON documents in the store, one per run, and the last one for later runs.

    Within a run an asset reads what that run made upstream, whatever other runs do meanwhile.
    """

    store: dg.ResourceDependency[StoreResource]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the reference under the run's name and as the asset's last."""
        if obj is None:
            return
        for name in (context.run_id, "last"):
            write_ref(self.store.open().backend, context.asset_key, name, obj)

    def load_input(self, context: dg.InputContext) -> ArtifactRef | None:
        """Read what this run made, or what the last run that made it did; None if nobody did and the input says that
        it can do without (`OPTIONAL`).
        """
        ref = read_ref(self.store.open().backend, context.asset_key, context.step_context.run_id)
        if ref is not None:
            return ref
        if (context.definition_metadata or {}).get(OPTIONAL):
            return None
        asset = context.asset_key.to_user_string()
        raise StoreError(
            f"{asset} has not been materialized into {self.store.open().uri} yet. "
            f"Materialize it first: dagster asset materialize --select '+{asset}' -m vlm_assets.definitions"
        )


def read_ref(backend: Backend, asset: dg.AssetKey, run_id: str = "") -> ArtifactRef | None:
    """What the run made of `asset`, or else what the last run that made it did; None if nobody did."""
    for name in (run_id, "last"):
        text = backend.read_text(_ref_key(asset, name)) if name else None
        if text is not None:
            return ArtifactRef.from_json(json.loads(text))
    return None


def refs_of_all_runs(backend: Backend, asset: dg.AssetKey) -> Iterator[ArtifactRef]:
    """What each run made of `asset`, as it is read; equal ones may come again."""
    for name in backend.list_keys(_refs_folder(asset)):
        text = backend.read_text(f"{_refs_folder(asset)}/{name}")
        if text is not None:
            yield ArtifactRef.from_json(json.loads(text))


def write_ref(backend: Backend, asset: dg.AssetKey, name: str, ref: ArtifactRef) -> None:
    """Note the reference of `asset` under a run's name, or as the `last`."""
    backend.write_text(_ref_key(asset, name), json.dumps(ref.to_json(), indent=1))


def _ref_key(asset: dg.AssetKey, name: str) -> str:
    return f"{_refs_folder(asset)}/{name}.json"


def _refs_folder(asset: dg.AssetKey) -> str:
    return f"refs/{'/'.join(asset.path)}"


def local_resources() -> dict[str, Any]:
    """Everything the assets ask for, settled by the environment."""
    from vlm_assets.release.deploy import ServeResource

    store = StoreResource()
    return {
        "store": store,
        "tracker": TrackerResource(),
        "serve": ServeResource(),
        "io_manager": RefIOManager(store=store),
    }
