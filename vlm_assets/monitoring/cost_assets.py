"""The asset `cost_report`: what runs and captions cost, from Dagster's own history and the request log."""

import json
import time
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
from pydantic import Field

from vlm_assets.contracts import ArtifactRef, Recipe, digest
from vlm_assets.data.metadata import table
from vlm_assets.monitoring.compaction import ROWS
from vlm_assets.monitoring.costs import RunTime, cost_plot, cost_summary
from vlm_assets.monitoring.plots import png_markdown
from vlm_assets.resources import StoreResource
from vlm_assets.store import Draft

CODE_VERSION = "1"
REPORT, PLOT = "costs.json", "costs.png"
MAX_RUNS = 1000
SECONDS_PER_DAY = 24 * 3600.0


class CostConfig(dg.Config):
    """Which time is counted."""

    days: float = Field(default=7.0, gt=0, description="Runs that ended in the last so many days.")


@dg.asset(
    group_name="monitoring",
    kinds={"python"},
    owners=["team:vlm"],
    code_version=CODE_VERSION,
    description="Device-seconds per run and per 1,000 captions, idle share of the service, 95 % of deployments' time",
)
def cost_report(
    context: dg.AssetExecutionContext, config: CostConfig, store: StoreResource, request_log: ArtifactRef
) -> dg.MaterializeResult[ArtifactRef]:
    """A run counts from start to end, times its training workers; captions by the window of `request_log`."""
    opened = store.open()
    runs, deployments_s = past_times(context.instance, time.time() - config.days * SECONDS_PER_DAY)
    requests: Any = pq.read_table(opened.directory(request_log) / ROWS, columns=["time_unix_s", "latency_ms"])
    summary = cost_summary(runs, requests, deployments_s)
    recipe = Recipe("cost_report", CODE_VERSION, parents=(request_log,), inputs={"figures": digest(summary)})

    def write(draft: Draft) -> None:
        (draft.path / REPORT).write_text(json.dumps(summary, indent=1) + "\n")
        (draft.path / PLOT).write_bytes(cost_plot(summary))
        draft.counts |= {"runs": len(runs), "captions": summary["captions"]}

    built = opened.build(recipe, write)
    figures = ("captions", "busy_s_per_1000_captions", "idle_share", "cold_start_p95_s")
    return dg.MaterializeResult(
        value=built.ref,
        data_version=dg.DataVersion(built.ref.version),
        metadata={
            "dagster/uri": built.ref.uri,
            **{name: summary[name] for name in figures if summary[name] is not None},
            "jobs": table([{**row, "median_device_s": f"{row['median_device_s']:.1f}"} for row in summary["jobs"]]),
            "plot": dg.MetadataValue.md(png_markdown((built.path / PLOT).read_bytes(), "costs")),
        },
    )


def past_times(instance: dg.DagsterInstance, since_unix_s: float) -> tuple[list[RunTime], list[float]]:
    """The runs that ended since then, and how long their deployments (steps `serving_app`) took, in seconds."""
    runs: list[RunTime] = []
    deployments_s: list[float] = []
    for record in instance.get_run_records(limit=MAX_RUNS):
        if not record.start_time or not record.end_time or record.end_time < since_unix_s:
            continue
        run = record.dagster_run
        ops: Any = run.run_config.get("ops", {})
        config: Any = ops.get("finetuned_model", {}).get("config", {})
        runs.append(RunTime(run.job_name, record.end_time - record.start_time, int(config.get("workers", 1) or 1)))
        for step in instance.get_run_step_stats(run.run_id, ["serving_app"]):
            if step.start_time and step.end_time and step.status and step.status.value == "SUCCESS":
                deployments_s.append(step.end_time - step.start_time)
    return runs, deployments_s
