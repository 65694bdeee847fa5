"""Whom to tell when a run or a check fails: the webhook of VLM_ALERT_WEBHOOK_URL."""

from typing import Any

import dagster as dg

from vlm_assets.monitoring.alerts import Alert, send_alert
from vlm_assets.monitoring.config import tick_s

TICK_S = 30


@dg.run_failure_sensor(
    name="run_failure_alert",
    minimum_interval_seconds=tick_s(TICK_S),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the webhook of every run that failed, with the reason.",
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """One alert per failed run: the innermost error, which is the asset's own."""
    run = context.dagster_run
    text = f"Run {run.run_id} of {run.job_name} failed: {_reason(context)}"
    if reason := run.tags.get("vlm/retrain_reason"):
        text += f" It was asked for because of: {reason}."
    send_alert(Alert(f"{run.job_name} failed", text), context.log.info)


@dg.sensor(
    name="check_failure_alert",
    minimum_interval_seconds=tick_s(TICK_S),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells the webhook of every asset check that did not pass.",
)
def check_failure_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Looks at the latest result of every check, and tells of those that it has not seen; the first look tells none."""
    graph: Any = context.repository_def.asset_graph if context.repository_def else None
    keys = list(graph.asset_check_keys) if graph else []
    latest = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys).values()
    found = [(one.event.timestamp, one.evaluation) for one in latest if one.event]
    done = [(at_s, one) for at_s, one in found if isinstance(one, dg.AssetCheckEvaluation)]  # others are only planned
    seen_s = float(context.cursor) if context.cursor else None
    context.update_cursor(repr(max([seen_s or 0.0, *(at_s for at_s, _ in done)])))
    new = [one for at_s, one in done if seen_s is not None and at_s > seen_s]
    failed = [one for one in new if not one.passed]
    for one in failed:
        severity = "warning" if one.severity == dg.AssetCheckSeverity.WARN else "error"
        name = f"{one.asset_key.to_user_string()}: {one.check_name}"
        send_alert(Alert(f"check did not pass: {name}", one.description or "", severity), context.log.info)
    return dg.SkipReason(f"{len(new)} new results of checks, {len(failed)} did not pass.")


def _reason(context: dg.RunFailureSensorContext) -> str:
    """The first failed step's innermost error; the run's own message if no step failed."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            return f"{event.step_key}: {' '.join(error.message.split())[:500]}"
    return context.failure_event.message or "no message"
