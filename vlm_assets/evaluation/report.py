"""scores.json and a few pictures -> one HTML page that can be mailed: nothing is loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from vlm_assets.evaluation.display import (
    CIDER,
    EXACT,
    HEADLINE,
    METRICS,
    Metric,
    axis_end,
    beyond_none,
    counted,
    short_protocol,
    shown,
    slot_metrics,
)
from vlm_assets.evaluation.gallery import Card
from vlm_assets.evaluation.report_differences import TAGS, difference_tables, tone
from vlm_assets.evaluation.report_leaks import leaks_shown
from vlm_assets.release.gate import Verdict

TEMPLATE = Path(__file__).with_name("report.html.j2")
HEADLINE_SPLIT = "test"
SPLIT_ABOUT = {
    "val": "the checkpoint was chosen on it",
    "general/test": "pictures like those of the pretraining: what fine-tuning forgot",
}
VERDICT = (CIDER, EXACT)
PARTS = {
    "random": ("At random", "Drawn by lot with a fixed seed: what to expect."),
    "worst": ("Worst", "The lowest scores of the split."),
    "best": ("Best", "The highest scores of the split."),
}
FEW_PICTURES = 30  # slices of fewer are marked
SURE, EVEN = 0.8, 0.5  # words below the one are underlined with dots, below the other with a line
LOOPING_PERCENT, MOST_FREQUENT_PERCENT = 1, 20  # above these the verdict says so


@dataclass(frozen=True)
class Finding:
    """One sentence of the comparison; `tone` is good, bad, open or same."""

    tone: str
    tag: str
    text: str


def findings(scores: Mapping[str, Any]) -> list[Finding]:
    """In sentences: against each rival on the headline split, then forgetting, then what looks wrong."""
    systems = scores["systems"]
    rivals = dict.fromkeys(row["against"] for row in _on(scores, HEADLINE_SPLIT))
    found = [_against(rival, scores) for rival in rivals]
    return found + _forgetting(scores) + _symptoms(systems["candidate"]["splits"][HEADLINE_SPLIT]["collapse"])


def _against(rival: str, scores: Mapping[str, Any]) -> Finding:
    rows = {row["metric"]: row for row in _on(scores, HEADLINE_SPLIT) if row["against"] == rival}
    compared = shown(VERDICT, rows)
    tones = {tone(rows[metric.key]) for metric in compared}
    way = next(way for way in ("bad", "good", "open", "same") if way in tones)
    amounts = "; ".join(_amount(metric, rows[metric.key]) for metric in compared)
    return Finding(way, TAGS[way], f"Against {scores['systems'][rival]['in_a_sentence']}: {amounts}.")


def _amount(metric: Metric, row: Mapping[str, Any]) -> str:
    if tone(row) == "same":
        return f"{metric.label} the same"
    return f"{metric.label} {metric.text(row['value'], signed=True)} ({metric.interval(row, signed=True)})"


def _on(scores: Mapping[str, Any], split: str) -> list[Mapping[str, Any]]:
    return [row for row in scores["differences"] if row["split"] == split]


def _forgetting(scores: Mapping[str, Any]) -> list[Finding]:
    rows = [row for row in _on(scores, "general/test") if row["metric"] == CIDER.key]
    systems = scores["systems"]
    found: list[Finding] = []
    for row in rows:
        before = systems[row["against"]]["splits"]["general/test"]["metrics"][CIDER.key]["value"]
        after = systems["candidate"]["splits"]["general/test"]["metrics"][CIDER.key]["value"]
        way = tone(row)
        kept = f"On pictures like those of the pretraining: CIDEr {before:.2f} before fine-tuning, {after:.2f} after"
        found.append(Finding(way, TAGS[way], f"{kept}, a change of {CIDER.interval(row, signed=True)}."))
    return found


def _symptoms(collapse: Mapping[str, Any]) -> list[Finding]:
    empty, looping, frequent = (100 * collapse[f"{name}_share"] for name in ("empty", "looping", "most_frequent"))
    found: list[Finding] = []
    if empty > 0:
        found.append(Finding("bad", "empty", f"{empty:.1f} % of captions are empty."))
    if looping > LOOPING_PERCENT:
        found.append(Finding("bad", "looping", f"{looping:.1f} % of captions repeat themselves."))
    if frequent > MOST_FREQUENT_PERCENT:
        text = f"{frequent:.0f} % of pictures get the same caption: {collapse['most_frequent_caption']!r}."
        found.append(Finding("bad", "collapse", text))
    return found


def render_report(scores: Mapping[str, Any], gallery: Mapping[str, Sequence[Card]], verdict: Verdict) -> str:
    """The page. `scores` is scores.json, `verdict` the gate's; `gallery` holds cards for its parts."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    helpers: dict[str, Any] = {"clamp": _clamp, "mark": mark, "counted": counted, "beyond_none": beyond_none}
    environment.globals.update(helpers)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(view(scores, gallery, verdict))


def view(scores: Mapping[str, Any], gallery: Mapping[str, Sequence[Card]], verdict: Verdict) -> dict[str, Any]:
    """All that the template shows, ready to print."""
    systems = [{"key": key, **system} for key, system in scores["systems"].items()]
    ours = scores["systems"]["candidate"]
    measured = ours["splits"][HEADLINE_SPLIT]["metrics"]
    columns = shown(HEADLINE, measured)
    pictures = counted(scores["splits"][HEADLINE_SPLIT])
    return {
        "scores": scores,
        "verdict": verdict,
        "ours": ours,
        "systems": systems,
        "headline": headline(scores),
        "notes": ours["splits"][HEADLINE_SPLIT]["notes"],
        "lede": f"{ours['about']}. Measured with the captioner that serves, on {pictures} that it has never seen.",
        "findings": findings(scores),
        "tiles": columns[:4],
        "columns": columns,
        "slots": slot_metrics(measured),
        "split_columns": columns[:3],
        "slice_columns": shown(columns[:3], scores["slices"][0]["metrics"] if scores["slices"] else {}),
        "ends": {metric.key: axis_end(metric, _estimates(scores, metric)) for metric in METRICS},
        "differences": difference_tables(scores, HEADLINE_SPLIT),
        "splits": _splits(scores),
        "splits_note": _splits_note(scores),
        "slices": [(kind, list(rows)) for kind, rows in groupby(scores["slices"], key=lambda row: row["kind"])],
        "gallery": [{"title": PARTS[name][0], "note": PARTS[name][1], "cards": gallery[name]} for name in PARTS],
        "gallery_metric": CIDER,
        "sure": round(100 * SURE),
        "even": round(100 * EVEN),
        "few": FEW_PICTURES,
        "leaks": leaks_shown(scores.get("leaks")),
        "protocol": short_protocol(scores["protocol"]),
    }


def headline(scores: Mapping[str, Any]) -> str:
    """The page's title: the two figures that matter most and on how many pictures."""
    split = scores["systems"]["candidate"]["splits"][HEADLINE_SPLIT]
    cider, exact = split["metrics"][CIDER.key], split["metrics"].get(EXACT.key)
    parts = [f"CIDEr {CIDER.value(cider)}"]
    if exact:
        parts.append(f"{100 * exact['value']:.0f} % word for word")
    return f"{', '.join(parts)} on {split['n']:,} unseen pictures"


def mark(probability: float) -> str:
    """How a word is marked, not by colour alone: `doubtful`, `unsure`, or "" for a sure one."""
    return "doubtful" if probability < EVEN else "unsure" if probability < SURE else ""


def _estimates(scores: Mapping[str, Any], metric: Metric) -> list[Mapping[str, Any]]:
    measured = [split["metrics"] for system in scores["systems"].values() for split in system["splits"].values()]
    measured += [row["metrics"] for row in scores["slices"]]
    return [metrics[metric.key] for metrics in measured if metric.key in metrics]


def _splits(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    ours = scores["systems"]["candidate"]["splits"]
    return [
        {
            "name": name,
            "about": SPLIT_ABOUT.get(name, "held out on purpose"),
            "rows": sum(name in system["splits"] for system in scores["systems"].values()),
        }
        for name in ours
        if name != HEADLINE_SPLIT
    ]


def _splits_note(scores: Mapping[str, Any]) -> str:
    hard = [name for name in scores["systems"]["candidate"]["splits"] if name.startswith("test_")]
    if not hard:
        return "The same measures on the other splits."
    names = ", ".join(hard)
    return f"The hard splits ({names}) hold out a whole kind of picture, so nothing like it was ever trained on."


def _clamp(percent: float) -> str:
    return f"{min(max(percent, 0.0), 100.0):.2f}"
