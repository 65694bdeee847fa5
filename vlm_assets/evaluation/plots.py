"""The score plot for Dagster's metadata and MLflow: every captioner, the main metrics, 95 % intervals."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_assets.evaluation.display import HEADLINE, Metric, axis_end, shown

OURS, QUIET, INK, SOFT, LINE = "#2456d6", "#98a2b3", "#1b1f27", "#5b6472", "#e6e7ea"


def write_score_plot(scores: Mapping[str, Any], path: Path, split: str = "test") -> None:
    """One panel per metric, one row per captioner: bar, dot and whisker. A PNG of some 30 kB."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    systems = {key: system for key, system in scores["systems"].items() if split in system["splits"]}
    metrics = shown(HEADLINE, systems["candidate"]["splits"][split]["metrics"])
    figure = Figure(figsize=(2.35 * len(metrics) + 1.9, 0.46 * len(systems) + 1.35), dpi=100, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # pyright: ignore[reportOptionalMemberAccess,reportCallIssue]
    axes: Any = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for metric, ax in zip(metrics, axes, strict=True):
        _panel(ax, metric, systems, split)
    n = systems["candidate"]["splits"][split]["n"]
    which = f"{split}, split {scores['splits'][split]['sha256'][:12]}"
    figure.suptitle(f"{which}: {n:,} pictures, 95 % intervals", x=0.01, ha="left", fontsize=10, color=SOFT)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    path.write_bytes(buffer.getvalue())


def _panel(ax: Any, metric: Metric, systems: Mapping[str, Any], split: str) -> None:
    rows = [system["splits"][split]["metrics"].get(metric.key) for system in systems.values()]
    end = axis_end(metric, [row for row in rows if row])
    for place, (key, row) in enumerate(zip(systems, rows, strict=True)):
        if row is None:
            continue
        colour = OURS if key == "candidate" else QUIET
        ax.barh(place, row["value"], height=0.62, color=colour, alpha=0.22)
        ax.plot([row["low"], row["high"]], [place, place], color=colour, lw=2, solid_capstyle="round")
        ax.plot(row["value"], place, "o", color=colour, ms=5)
        text_at, side = (row["high"], "left") if row["high"] < 0.72 * end else (row["low"], "right")
        gap = 0.03 * end * (1 if side == "left" else -1)
        ax.text(text_at + gap, place, metric.value(row), va="center", ha=side, fontsize=8.5, color=INK)
    ax.set_title(metric.label, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    ax.set_xlim(0, end)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), [system["label"] for system in systems.values()], fontsize=9, color=INK)
    ax.set_xticks([0, end / 2, end], [f"{100 * x:g} %" if metric.share else f"{x:g}" for x in (0, end / 2, end)])
    for label, side in zip(ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        label.set_horizontalalignment(side)  # neighbouring panels' labels would touch
    ax.tick_params(length=0, labelsize=8, labelcolor=SOFT)
    ax.tick_params(axis="y", labelsize=9, labelcolor=INK)
    ax.grid(axis="x", color=LINE, lw=0.8)
    ax.set_axisbelow(True)
    for side in ax.spines.values():
        side.set_visible(False)
