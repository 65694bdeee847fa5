"""Submitting a distributed training from an asset, with Dagster Pipes: this process loads neither torch nor Ray.

Logs come back line by line, the summary at the end. VLM_RAY_ADDRESS names a standing Ray cluster whose machines see
the store and the scratch directory at the same paths; without it Ray starts here, for this training only.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.errors import TrainingError
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import Inputs, Metric

FAILURE = "failure.txt"  # the one clear message of a training that failed
CURVES_OF_SUMMARY = ("train_loss", "val_loss", "val_cider", "val_exact")


def train_on_ray(
    context: dg.AssetExecutionContext,
    out: Path,
    inputs: Inputs,
    config: FinetuneConfig,
    lineage: Mapping[str, Any],
    scratch: Path,
    metric: Metric,
) -> dict[str, Any]:
    """What `write_candidate` does, by `config.workers` processes of a Ray cluster. Raises TrainingError."""
    task = {
        "out": str(out),
        "inputs": {name: str(path) for name, path in asdict(inputs).items()},
        "config": config.model_dump(),
        "lineage": dict(lineage),
        "scratch": str(scratch),
        "address": os.environ.get("VLM_RAY_ADDRESS", ""),
    }
    failure = scratch / FAILURE
    failure.unlink(missing_ok=True)
    client = dg.PipesSubprocessClient(forward_termination=True)
    try:
        session = client.run(
            context=context.op_execution_context,
            command=[sys.executable, "-W", "ignore", "-m", "vlm_assets.training.ray_driver"],
            extras=task,
            # two warnings of Ray's about its own future
            env={"RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
        )
    except Exception as error:
        if failure.is_file():
            raise TrainingError(failure.read_text()) from error
        raise TrainingError(f"The training on Ray ended without a word of its own: {error}") from error
    (summary,) = session.get_custom_messages()
    result: dict[str, Any] = json.loads(summary)
    for name in CURVES_OF_SUMMARY:
        for step, value in result[name]:
            metric(name, value, step)
    return result
