"""The online guard: for a while after a promotion the new champion is watched, and rolled back if it degrades."""

import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from vlm_assets.monitoring.config import tick_s
from vlm_assets.monitoring.drift import DRIFTED
from vlm_assets.monitoring.findings import findings
from vlm_assets.release.guard import ROWS_BEFORE, GuardBounds, degradations, served_by
from vlm_assets.release.history import PROMOTE, history
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.resources import StoreResource, request_log_dir

TICK_S = 30
LOOK_BACK_S = 24 * 3600.0  # for what the champion before answered
GUARD_TAG = "vlm/guard_entry"


def build_guard_sensor(
    rollback: Any, *, bounds: GuardBounds | None = None, clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """A sensor that requests `rollback` once per ledger entry; `bounds` None: from the environment, at each tick."""

    @dg.sensor(
        name="guard_sensor",
        job=rollback,
        minimum_interval_seconds=tick_s(TICK_S),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Rolls a new champion back if, in its first hour, it is worse than the one before.",
    )
    def guard_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason | dg.RunRequest:
        limits, now_s = bounds or GuardBounds.from_environment(), clock()
        entries = Ledger(StoreResource().open()).entries()
        below = history(entries).standing[:-1]
        champion = entries[-1] if entries else None
        if champion is None or champion.action != PROMOTE or not below:
            return dg.SkipReason("No promotion to watch, or none before it to go back to.")
        if now_s - champion.time_unix_s > limits.watch_s:
            return dg.SkipReason(f"Bundle {champion.bundle_version} has been watched for {limits.watch_s:.0f} s.")
        found = _judge(context.instance, below[-1], champion, limits, now_s)
        if isinstance(found, str):
            return dg.SkipReason(found)
        return _request(champion, below[-1], found)

    return guard_sensor


def _judge(
    instance: dg.DagsterInstance, before: LedgerEntry, champion: LedgerEntry, limits: GuardBounds, now_s: float
) -> list[str] | str:
    """What is beyond its bounds, or why nothing is."""
    from vlm_serving.failure_log import read_failures
    from vlm_serving.request_log import read_request_log

    log, failures = (read(request_log_dir(), now_s - LOOK_BACK_S) for read in (read_request_log, read_failures))
    old = served_by(log, failures, before.bundle_version, last=ROWS_BEFORE)
    new = served_by(log, failures, champion.bundle_version, champion.time_unix_s)
    found = [*degradations(old, new, limits), *_new_drift(instance, before, champion)]
    if found:
        return found
    return (
        f"Bundle {champion.bundle_version} is within bounds: {len(new)} pictures since its promotion, {len(old)} of "
        f"the one before (from {limits.min_pictures} on they are compared)."
    )


def _new_drift(instance: dg.DagsterInstance, before: LedgerEntry, champion: LedgerEntry) -> list[str]:
    """Drift that the champion before did not have: what it was told last, and what the new one is told now."""
    found = findings(instance)
    now = next((one for one in found if one.reference_version == champion.bundle_version), None)
    was = next((one for one in found if one.reference_version == before.bundle_version), None)
    if now is None or now.verdict != DRIFTED or was is None or was.verdict == DRIFTED:
        return []
    return [f"traffic that had not drifted has, by its own reference (effect {now.effect_size:.2f})"]


def _request(champion: LedgerEntry, before: LedgerEntry, found: list[str]) -> dg.RunRequest:
    """Names both bundles: if the champion has changed by the time it runs, nothing is rolled back."""
    config = {
        "version": before.bundle_version,
        "only_if_champion": champion.bundle_version,
        "reason": f"online guard: {'; '.join(found)}",
    }
    return dg.RunRequest(
        run_key=f"guard-{champion.number}",
        run_config={"ops": {"roll_back_champion": {"config": config}}},
        tags={GUARD_TAG: str(champion.number)},
    )
