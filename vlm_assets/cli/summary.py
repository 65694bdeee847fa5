"""The demo's last page: scores with intervals, captions beside their references, where to look, what to do next."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_assets.evaluation.display import CIDER, EXACT, SLOTS, Metric, counted
from vlm_assets.evaluation.report import HEADLINE_SPLIT

SHOWN = (CIDER, EXACT, SLOTS)
WIDTH = 44


@dataclass(frozen=True)
class Captioned:
    """A held-out picture: what the service said, how sure it was (0..1), and what people say."""

    caption: str
    confidence: float
    references: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether the caption is one of the references, apart from letter case and outer blanks."""
        return self.caption.strip().lower() in {reference.strip().lower() for reference in self.references}


def summary(report: Path, captioned: Sequence[Captioned], places: Mapping[str, str], ending: str) -> str:
    """The page. `report` is an eval_report directory; `places` what to find where; `ending` the time it took."""
    scores = json.loads((report / "scores.json").read_text())
    parts = ["", *_score_table(scores), "", *caption_table(captioned), "", *_place_lines(places), "", ending]
    return "\n".join(parts)


def _score_table(scores: Mapping[str, Any]) -> list[str]:
    systems = {
        system["label"]: system["splits"][HEADLINE_SPLIT]["metrics"]
        for system in scores["systems"].values()
        if HEADLINE_SPLIT in system["splits"]
    }
    estimates = [estimate for metrics in systems.values() for estimate in metrics.values()]
    pictures = counted(max(estimates, key=lambda estimate: estimate["n"]))
    metrics = [metric for metric in SHOWN if any(metric.key in measured for measured in systems.values())]
    head = f"{'':<30}" + "".join(f"{metric.label:>26}" for metric in metrics)
    lines = [
        f"{label[:29]:<30}" + "".join(_cell(metric, found) for metric in metrics) for label, found in systems.items()
    ]
    notes = scores["systems"]["candidate"]["splits"][HEADLINE_SPLIT]["notes"]
    title = f"Test split, {pictures} never trained on; in brackets the 95 % interval"
    return [title, head, *lines, *(f"note: {note}" for note in notes)]


def _cell(metric: Metric, measured: Mapping[str, Any]) -> str:
    estimate = measured.get(metric.key)
    text = f"{metric.value(estimate)} ({metric.interval(estimate)})" if estimate else "-"
    return f"{text:>26}"


def caption_table(captioned: Sequence[Captioned]) -> list[str]:
    """One line per picture; `=` marks a caption that is one of the picture's references."""
    lines = [f"  {'caption over HTTP':<{WIDTH}}   {'reference':<{WIDTH}} sure"]
    for one in captioned:
        mark = "=" if one.exact else " "
        reference = one.caption if one.exact else one.references[0]
        lines.append(f"{mark} {_cut(one.caption)}   {_cut(reference)} {100 * one.confidence:3.0f} %")
    return lines


def _cut(text: str) -> str:
    return f"{text if len(text) <= WIDTH else text[: WIDTH - 1] + '…':<{WIDTH}}"


def _place_lines(places: Mapping[str, str]) -> list[str]:
    return [f"  {name:<10} {place}" for name, place in places.items()]
