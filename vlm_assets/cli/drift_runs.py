"""Runs of the drift demonstration: those started here, and those that the sensors start while we look on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from vlm_assets.cli.chain import ChainError, Narrator, first_failure
from vlm_assets.cli.console import Console
from vlm_assets.monitoring.findings import Finding, latest_finding
from vlm_assets.presets import preset_config
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.resources import StoreResource, read_ref

POLL_S = 1.0


@dataclass
class Timeline:
    """What was seen, when."""

    console: Console
    rows: list[tuple[float, str, bool, str]] = field(default_factory=list[tuple[float, str, bool, str]])

    def note(self, step: str, seen: bool, what: str) -> None:
        """One step: whether it was seen, and its figures."""
        self.rows.append((self.console.elapsed_s(), step, seen, what))
        self.console.say(f"{'seen' if seen else 'NOT SEEN'}: {step}: {what}")

    @property
    def complete(self) -> bool:
        """Whether every step was seen."""
        return all(seen for _, _, seen, _ in self.rows)

    def table(self) -> str:
        """All of it."""
        lines = ["", f"{'time':>6}  {'':4}  {'step':<44} what"]
        for at_s, step, seen, what in self.rows:
            lines.append(f"{int(at_s // 60):3}:{int(at_s % 60):02}  {'ok' if seen else 'FAIL':<4}  {step:<44} {what}")
        return "\n".join(lines)


@dataclass
class Runs:
    """Jobs of the code location on one instance, in this process; and what the daemon does besides."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    console: Console
    check: Callable[[], None]  # raises if a server died

    def run(
        self, job: str, config: dict[str, Any] | None = None, assets: Sequence[str] = (), tell: bool = False
    ) -> dg.ExecuteInProcessResult:
        """Execute a job here, or some of its assets; failed or not, the result."""
        definition = self.defs.resolve_job_def(job)
        names = list(assets) or [key.to_user_string() for key in definition.asset_layer.executable_asset_keys]
        narrator = Narrator(self.console.say if tell else lambda _: None, names, [])
        narrating = dg.LoggerDefinition(lambda _: _logger(narrator))
        return definition.with_logger_defs({"console": narrating}).execute_in_process(
            instance=self.instance,
            run_config={**(config or _default(definition)), "loggers": {"console": {"config": {}}}},
            asset_selection=[dg.AssetKey(name) for name in assets] or None,
            raise_on_error=False,
        )

    def window(self, since_unix_s: float) -> Finding:
        """Look for drift in what was served since then."""
        hours = (time.time() - since_unix_s) / 3600
        result = self.run("monitor", {"ops": {"request_log": {"config": {"window_h": hours}}}})
        if not result.success:
            step, error = first_failure(result)
            raise ChainError(f"{step} failed: {error.message if error else 'no message'}")
        found = latest_finding(self.instance)
        if found is None:
            raise ChainError("monitor made no drift report")
        return found

    def launched(self, job: str, wait_s: float, finished: bool = True, **tags: str) -> dg.DagsterRun | None:
        """The run of `job` that a sensor started; None if none was there, or not `finished`, after `wait_s`."""
        deadline_s = time.monotonic() + wait_s
        while time.monotonic() < deadline_s:
            self.check()
            for run in self.instance.get_runs(dg.RunsFilter(job_name=job, tags=tags)):
                if "dagster/sensor_name" in run.tags and (run.is_finished or not finished):
                    return run
            time.sleep(POLL_S)
        return None

    def count(self, job: str) -> int:
        """How many runs of a job there were."""
        return self.instance.get_runs_count(dg.RunsFilter(job_name=job))

    def accepted(self) -> int:
        """Corrections that the last look accepted."""
        ref = read_ref(StoreResource().open().backend, dg.AssetKey("feedback_captions"))
        return ref.counts["accepted"] if ref else 0

    def last_candidate(self) -> str:
        """Version of the finetuned_model made last, released or not."""
        ref = read_ref(StoreResource().open().backend, dg.AssetKey("finetuned_model"))
        return ref.version if ref else ""

    def preset(self) -> dict[str, Any]:
        """What the preset says of each asset."""
        return dict((preset_config() or {}).get("ops", {}))

    def champion(self) -> LedgerEntry:
        """As the ledger names it."""
        entry = Ledger(StoreResource().open()).champion()
        if entry is None:
            raise ChainError("there is no champion")
        return entry


def _default(definition: dg.JobDefinition) -> dict[str, Any]:
    return dict(definition.run_config or {})


def _logger(handler: Narrator) -> Any:
    import logging

    logger = logging.Logger("vlm_assets.drift_demo", logging.DEBUG)
    logger.addHandler(handler)
    return logger
