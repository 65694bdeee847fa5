"""Run the whole asset graph in this process, telling the story of each asset in a few lines."""

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from vlm_assets.errors import VlmError

JOB = "captioner"
# said by dagster-mlflow once per asset, and by Dagster of every asset below one that failed
NOISE = ("Starting a new mlflow run", "Dependencies for step")
Say = Callable[[str], object]


class ChainError(VlmError):
    """An asset or one of its blocking checks failed; the message is the asset's own."""


class Narrator(logging.Handler):
    """Turns a run's events and log lines into lines for people: which asset, its progress, warnings, how long.

    `before` holds the (asset, version) pairs that existed when the run began: materializing one of them is a reuse.
    """

    def __init__(self, say: Say, assets: Collection[str], before: Collection[tuple[str, str]]) -> None:
        super().__init__()
        self._say, self._assets, self._before = say, assets, before
        self._started_s: dict[str, float] = {}
        self.reused: list[str] = []
        self.made: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Called by Dagster for everything that is logged in the run."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        if event is not None:
            self._event(event)
        elif meta.get("step_key") and record.levelno >= logging.INFO and not meta["orig_message"].startswith(NOISE):
            mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
            self._say(f"      {mark}{meta['orig_message']}")

    def _event(self, event: dg.DagsterEvent) -> None:
        kind, step = event.event_type, event.step_key or ""
        if kind is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._check(event)
        if "blocked by" in (event.message or ""):
            self._say(f"      waiting for another run: {event.message}")
        if step not in self._assets:
            return
        if kind is dg.DagsterEventType.STEP_START:
            self._started_s[step] = time.monotonic()
            self._say(f"[{len(self._started_s)}/{len(self._assets)}] {step}")
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            tags = event.step_materialization_data.materialization.tags or {}
            known = (step, tags.get("dagster/data_version", "")) in self._before
            (self.reused if known else self.made).append(step)
        elif kind is dg.DagsterEventType.STEP_SUCCESS:
            what = "unchanged, reused" if step in self.reused else "done"
            self._say(f"      {what} ({time.monotonic() - self._started_s[step]:.1f} s)")

    def _check(self, event: dg.DagsterEvent) -> None:
        evaluation = event.asset_check_evaluation_data
        if not evaluation.passed:
            self._say(f"      {evaluation.severity.value.lower()}: check {evaluation.check_name} did not pass")


def asset_names(defs: dg.Definitions) -> list[str]:
    """Names of the assets that the whole chain materializes."""
    return [key.to_user_string() for key in defs.resolve_job_def(JOB).asset_layer.executable_asset_keys]


def run_chain(defs: dg.Definitions, instance: dg.DagsterInstance, narrator: Narrator) -> dg.ExecuteInProcessResult:
    """Materialize everything in flow order. Raises ChainError with the text of the first asset that failed."""
    job = defs.resolve_job_def(JOB).with_logger_defs({"console": _logger(narrator)})
    result = job.execute_in_process(
        instance=instance, run_config={"loggers": {"console": {"config": {}}}}, raise_on_error=False
    )
    if result.success:
        return result
    step, error = first_failure(result)
    if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
        raise KeyboardInterrupt
    text = error.message.strip() if error is not None else "no message"
    raise ChainError(f"{step} failed: {' '.join(text.split(': ', 1)[-1].split())}")


def _logger(handler: logging.Handler) -> dg.LoggerDefinition:
    def build(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("vlm_assets.demo", logging.DEBUG)
        logger.addHandler(handler)
        return logger

    return dg.LoggerDefinition(build)


def first_failure(result: dg.ExecuteInProcessResult) -> tuple[str, SerializableErrorInfo | None]:
    """The step that failed first and the innermost error: Dagster wraps what the asset raised."""
    for event in result.all_events:
        if event.event_type is dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return event.step_key or "", error
    return "the run", None
