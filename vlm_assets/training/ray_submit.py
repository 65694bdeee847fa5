"""Submitting a distributed training from an asset, with Dagster Pipes: this process loads neither torch nor Ray.

Logs, points of the curves and the check come back while it trains, the summary at the end. VLM_RAY_ADDRESS names a
standing Ray cluster whose machines see the store and the scratch directory at the same paths; without it Ray starts
here, for this training only.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.children import end_with_parent
from vlm_assets.errors import TrainingError
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import Inputs, Metric

FAILURE = "failure.txt"  # the one clear message of a training that failed
POLL_S = 0.2
GRACE_S = 20.0  # to take Ray down after an interruption
# two warnings of Ray's about its own future
QUIET = {"RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def train_on_ray(
    context: dg.AssetExecutionContext,
    out: Path,
    inputs: Inputs,
    config: FinetuneConfig,
    lineage: Mapping[str, Any],
    scratch: Path,
    metric: Metric,
) -> tuple[dict[str, Any], list[dg.AssetCheckResult]]:
    """What `write_candidate` does, by `config.workers` processes of a Ray cluster; also what the training checked.

    Raises TrainingError.
    """
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
    heard: list[dict[str, Any]] = []
    with (
        dg.open_pipes_session(
            context=context.op_execution_context,
            context_injector=dg.PipesTempFileContextInjector(),
            message_reader=dg.PipesTempFileMessageReader(),
            extras=task,
        ) as session,
        _driver(session) as driver,
    ):
        while driver.poll() is None:
            time.sleep(POLL_S)
            _hear(session, heard, metric)
    _hear(session, heard, metric)
    if driver.returncode != 0:
        raise TrainingError(
            failure.read_text()
            if failure.is_file()
            else f"The training on Ray ended without a word of its own: exit code {driver.returncode}."
        )
    checks = [result for result in session.get_reported_results() if isinstance(result, dg.AssetCheckResult)]
    return heard[-1]["summary"], checks


@contextmanager
def _driver(session: dg.PipesSession) -> Iterator["subprocess.Popen[bytes]"]:
    """The process that holds the training, ended with us: interrupted if the body raises, by the kernel if we die."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "vlm_assets.training.ray_driver"],
        env={**os.environ, **QUIET, **session.get_bootstrap_env_vars()},
        preexec_fn=end_with_parent,
    )
    try:
        yield process
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _hear(session: dg.PipesSession, heard: list[dict[str, Any]], metric: Metric) -> None:
    """Pass on the points that came since the last time. In this thread: a tracker's run belongs to one."""
    news = session.get_custom_messages()[len(heard) :]
    heard += news
    for message in news:
        if "metric" in message:
            name, value, step = message["metric"]
            metric(name, value, step)
