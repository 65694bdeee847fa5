"""Weights & Biases instead of MLflow for runs, by one setting (VLM_TRACKER=wandb). The model registry stays MLflow's.

WANDB_MODE=offline writes to disk without an account; `wandb sync` sends it later.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.errors import TrackingError


@dataclass(frozen=True)
class WandbRun:
    """What a stage may record, in the words of `TrackedRun`."""

    run: Any
    kind: str = "wandb"

    @property
    def run_id(self) -> str:
        """W&B's id of the run."""
        return str(self.run.id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings."""
        self.run.config.update(dict(params), allow_val_change=False)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Record what the run can be found by; W&B's own tags have no values, so they stand in the config."""
        self.run.config.update(dict(tags), allow_val_change=True)

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        """Record one point of a curve. Validation comes late for a step: each curve counts its own steps."""
        self.run.define_metric(name, step_metric=f"{name}_step")
        self.run.log({name: value, f"{name}_step": step})

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Record final figures."""
        self.run.summary.update(dict(metrics))

    def log_artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        self.run.save(str(path), base_path=str(path.parent), policy="now")


@contextmanager
def wandb_run(context: dg.AssetExecutionContext, project: str, stage: str, folder: Path) -> Iterator[WandbRun]:
    """A W&B run for one stage, grouped by Dagster run; it ends failed if the body raises."""
    try:
        import wandb
        from wandb.errors import Error
    except ImportError as error:
        raise TrackingError(
            "VLM_TRACKER is wandb, and it is not installed. Install it (pip install 'vlm-captioning[wandb]'), or unset "
            "VLM_TRACKER to use MLflow."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        run = wandb.init(
            project=project, group=context.run.run_id, job_type=stage, dir=str(folder),
            config={"dagster_run": context.run.run_id, "dagster_job": context.run.job_name},
        )  # fmt: skip
    except Error as error:
        raise TrackingError(
            f"Weights & Biases cannot be used: {error}. Log in (wandb login), or set WANDB_MODE=offline."
        ) from error
    try:
        yield WandbRun(run)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish(exit_code=0)
