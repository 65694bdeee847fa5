"""Which metrics are shown, in which order, under which name, and how a number is spelled."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from vlm_serving.generation import GenerationOptions


class EstimateJson(TypedDict):
    """A value with its 95 % interval from n pictures, as it stands in scores.json."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


@dataclass(frozen=True)
class Metric:
    """A metric's key in scores.json and how it is shown. `share` ones lie in 0..1 and are shown in per cent.

    `yes_or_no` ones are shares of pictures of which something is so or not.
    """

    key: str
    label: str
    explanation: str
    share: bool = True
    yes_or_no: bool = False

    def text(self, value: float, *, signed: bool = False) -> str:
        """The value as people read it: `7.32`, `41.0 %`; `+1.21`, `+3.5 points` for differences."""
        if not math.isfinite(value):
            return "n/a"
        sign = "+" if signed else ""
        return f"{100 * value:{sign}.1f} {self._unit(signed)}" if self.share else f"{value:{sign}.2f}"

    def value(self, estimate: Mapping[str, Any]) -> str:
        """The value of an estimate; `n/a` where it cannot mean anything, whatever it is (its `note` says why)."""
        if estimate.get("note"):
            return "n/a"
        if self.yes_or_no and estimate["value"] in (0, 1):
            return f"{100 * estimate['value']:.0f} %"  # none, or all
        return self.text(estimate["value"])

    def interval(self, estimate: Mapping[str, Any], *, signed: bool = False) -> str:
        """`6.94 to 7.71`; the unit stands once, at the end. In words where there can be no interval."""
        if estimate.get("note"):
            return "see the note"
        if estimate.get("n") == 1:
            return "of one picture"
        if self.yes_or_no and not signed and (bound := beyond_none(estimate["value"], estimate["clusters"])):
            return bound
        low = self.text(estimate["low"], signed=signed).removesuffix(f" {self._unit(signed)}")
        return f"{low} to {self.text(estimate['high'], signed=signed)}"

    @staticmethod
    def _unit(signed: bool) -> str:
        return "points" if signed else "%"


CIDER = Metric("cider", "CIDEr", "rare words and phrases shared with the references; 10 is the most", share=False)
EXACT = Metric("exact_match", "Exact match", "the caption is word for word one of the references", yes_or_no=True)
SLOTS = Metric(
    "slot_accuracy",
    "Slot accuracy",
    "all that the source declares (role, colour, …) is named rightly",
    yes_or_no=True,
)
BLEU_4 = Metric("bleu_4", "BLEU-4", "runs of up to four words shared with the references")
ROUGE_L = Metric("rouge_l", "ROUGE-L", "longest common subsequence of words")
METRICS = (
    CIDER,
    EXACT,
    SLOTS,
    BLEU_4,
    Metric("bleu_3", "BLEU-3", "runs of up to three words"),
    Metric("bleu_2", "BLEU-2", "runs of up to two words"),
    Metric("bleu_1", "BLEU-1", "single words"),
    ROUGE_L,
)
HEADLINE = (CIDER, EXACT, SLOTS, BLEU_4, ROUGE_L)


def slot_metric(name: str) -> Metric:
    """Accuracy of one slot that the source declares."""
    return Metric(f"slot.{name}", name.replace("_", " "), f"the {name} is named rightly", yes_or_no=True)


def beyond_none(share: float, clusters: int) -> str:
    """What a share of none or all of so many independent pictures says of others: `under 4.3 %`; else "".

    The rule of three (Hanley and Lippman-Hand 1983): with 95 % confidence the truth is within 3 / n. There is nothing
    to resample there, so the bootstrap's interval would be a point.
    """
    bound = 300 / clusters
    if share not in (0, 1) or bound >= 100:
        return ""
    return f"under {bound:.1f} %" if share == 0 else f"above {100 - bound:.1f} %"


def counted(measured: Mapping[str, Any]) -> str:
    """`200 pictures from 150 groups`; `200 pictures` if none belongs to another."""
    n, clusters = measured["n"], measured["clusters"]
    pictures = f"{n:,} picture{'s' if n != 1 else ''}"
    return pictures if n == clusters else f"{pictures} from {clusters:,} group{'s' if clusters != 1 else ''}"


def slot_metrics(present: Iterable[str]) -> list[Metric]:
    """The slots among the keys of measured metrics, in order of name."""
    return [slot_metric(key.removeprefix("slot.")) for key in sorted(present) if key.startswith("slot.")]


def shown(metrics: Iterable[Metric], present: Mapping[str, Any]) -> list[Metric]:
    """Those of `metrics` that were measured: slot accuracy, for one, only exists where a source declares slots."""
    return [metric for metric in metrics if metric.key in present]


def axis_end(metric: Metric, estimates: Iterable[Mapping[str, Any]]) -> float:
    """Where a metric's axis, which starts at 0, ends: 1 for shares, else the next round number above every interval."""
    if metric.share:
        return 1.0
    top = max((estimate["high"] for estimate in estimates), default=1.0)
    for end in (0.1, 0.2, 0.5, 1, 2, 4, 6, 8, 10, 12):
        if top <= end:
            return float(end)
    return float(math.ceil(top))


def short_protocol(protocol: Mapping[str, Any]) -> str:
    """How the captions and intervals came about, in the few words that fit beside every table."""
    generation = GenerationOptions(protocol["max_new_tokens"], protocol["num_beams"])
    return f"{generation} · 95 %: {protocol['resamples']:,} resamples"
