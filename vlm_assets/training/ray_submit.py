"""Submitting a distributed training from an asset, with Dagster Pipes: this process loads neither torch nor Ray.

Logs, points of the curves and the check come back while it trains, the summary at the end. VLM_RAY_ADDRESS names a
standing Ray cluster whose machines see the store and the scratch directory at the same paths; without it Ray starts
here, for this training only. On Kubernetes VLM_RAY_JOB names the RayJob to submit instead: see ray_job.py.
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
from typing import Any, Protocol

import dagster as dg

from vlm_assets.children import end_with_parent
from vlm_assets.errors import TrainingError
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import Inputs, Metric
from vlm_assets.training.ray_job import ray_job, ray_job_template, submitted

FAILURE = "failure.txt"  # the one clear message of a training that failed
POLL_S = 0.2
GRACE_S = 20.0  # to take Ray down after an interruption, and for the last words to cross a shared disk
# two warnings of Ray's about its own future
QUIET = {"RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Driver(Protocol):
    """What holds the training, wherever it runs."""

    def poll(self) -> int | None:
        """None while it trains; 0 if it succeeded."""
        ...

    def ending(self) -> str:
        """How it ended."""
        ...


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

    Pipes' files lie in the scratch directory, which the cluster sees. Raises TrainingError.
    """
    template = ray_job_template()
    task = {
        "out": str(out),
        "inputs": {name: str(path) for name, path in asdict(inputs).items()},
        "config": config.model_dump(),
        "lineage": dict(lineage),
        "scratch": str(scratch),
        "address": "auto" if template else os.environ.get("VLM_RAY_ADDRESS", ""),
    }
    failure = scratch / FAILURE
    failure.unlink(missing_ok=True)
    heard: list[dict[str, Any]] = []
    with (
        dg.open_pipes_session(
            context=context.op_execution_context,
            context_injector=dg.PipesFileContextInjector(str(scratch / "pipes-context.json")),
            message_reader=dg.PipesFileMessageReader(str(scratch / "pipes-messages.jsonl")),
            extras=task,
        ) as session,
        _driver(session, template, scratch, config.workers) as driver,
    ):
        while (code := driver.poll()) is None:
            time.sleep(POLL_S)
            _hear(session, heard, metric)
        if code == 0:
            _wait_for_last_words(session)
    _hear(session, heard, metric)
    if code != 0:
        raise TrainingError(
            failure.read_text()
            if failure.is_file()
            else f"The training on Ray ended without a word of its own: {driver.ending()}."
        )
    checks = [result for result in session.get_reported_results() if isinstance(result, dg.AssetCheckResult)]
    return heard[-1]["summary"], checks


@contextmanager
def _driver(session: dg.PipesSession, template: Path | None, scratch: Path, workers: int) -> Iterator[Driver]:
    environment = {**QUIET, **session.get_bootstrap_env_vars()}
    if template:
        with submitted(ray_job(template, scratch, workers, environment)) as job:
            yield job
    else:
        with _process(environment) as process:
            yield process


class _Process:
    """The driver as a process of this machine."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "vlm_assets.training.ray_driver"],
            env={**os.environ, **environment},
            preexec_fn=end_with_parent,
        )

    def poll(self) -> int | None:
        return self._process.poll()

    def ending(self) -> str:
        return f"exit code {self._process.returncode}"

    def interrupt(self) -> None:
        """As Ctrl-C does; killed if that does not help."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def _process(environment: Mapping[str, str]) -> Iterator[_Process]:
    """The process that holds the training, ended with us: interrupted if the body raises, by the kernel if we die."""
    process = _Process(environment)
    try:
        yield process
    except BaseException:
        process.interrupt()
        raise


def _wait_for_last_words(session: dg.PipesSession) -> None:
    """Until the driver's goodbye has been read: a network's disk may show it some seconds later."""
    deadline_s = time.monotonic() + GRACE_S
    while not session.message_handler.received_closed_message and time.monotonic() < deadline_s:
        time.sleep(POLL_S)


def _hear(session: dg.PipesSession, heard: list[dict[str, Any]], metric: Metric) -> None:
    """Pass on the points that came since the last time. In this thread: a tracker's run belongs to one."""
    news = session.get_custom_messages()[len(heard) :]
    heard += news
    for message in news:
        if "metric" in message:
            name, value, step = message["metric"]
            metric(name, value, step)
