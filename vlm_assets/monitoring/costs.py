"""What the loop costs: time per run and per 1,000 captions, how long the service idles and starts. Pure."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class RunTime:
    """One run that ended: its job, how long it took, and on how many devices."""

    job: str
    seconds: float
    devices: int = 1


def cost_summary(runs: Sequence[RunTime], requests: Any, deployments_s: Sequence[float]) -> dict[str, Any]:
    """All figures as plain data. `requests`: time_unix_s (of the answer) and latency_ms, one row a picture."""
    busy_s, span_s = busy_time(requests["time_unix_s"].to_pylist(), requests["latency_ms"].to_pylist())
    captions = requests.num_rows
    return {
        "jobs": job_table(runs),
        "captions": captions,
        "busy_s": busy_s,
        "span_s": span_s,
        "busy_s_per_1000_captions": 1000 * busy_s / captions if captions else None,
        "idle_share": 1 - busy_s / span_s if span_s else None,
        "deployments": len(deployments_s),
        "cold_start_p95_s": float(np.quantile(deployments_s, 0.95)) if deployments_s else None,
    }


def busy_time(answered_s: Sequence[float], latency_ms: Sequence[float]) -> tuple[float, float]:
    """Seconds in which at least one request was in work, and seconds from the first request to the last answer."""
    work = sorted((end - latency / 1000, end) for end, latency in zip(answered_s, latency_ms, strict=True))
    busy_s, until_s = 0.0, float("-inf")
    for begin, end in work:
        busy_s += max(0.0, end - max(begin, until_s))
        until_s = max(until_s, end)
    return busy_s, until_s - work[0][0] if work else 0.0


def job_table(runs: Sequence[RunTime]) -> list[dict[str, Any]]:
    """Runs, median and total device-seconds by job, the dearest first."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        seconds[run.job].append(run.seconds * run.devices)
    rows: list[dict[str, Any]] = [
        {"job": job, "runs": len(all_s), "median_device_s": float(np.median(all_s)), "total_device_s": sum(all_s)}
        for job, all_s in seconds.items()
    ]
    return sorted(rows, key=lambda row: -row["total_device_s"])


def cost_plot(summary: Mapping[str, Any]) -> bytes:
    """Device-seconds by job beside busy and idle time of the service, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    jobs: Sequence[Mapping[str, Any]] = summary["jobs"]
    left.barh([row["job"] for row in jobs], [row["total_device_s"] for row in jobs], color="#2d7dd2")
    left.invert_yaxis()
    left.set_xlabel("device-seconds, all runs of the window")
    idle_s = summary["span_s"] - summary["busy_s"]
    right.barh(["busy", "idle"], [summary["busy_s"], idle_s], color=["#2d7dd2", "#c8c8c8"])
    right.invert_yaxis()
    right.set_xlabel(f"seconds of the service, {summary['captions']:,} captions")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
