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
    short_protocol,
    shown,
    slot_metrics,
)
from vlm_assets.evaluation.gallery import Card
from vlm_assets.evaluation.report_leaks import leaks_shown

TEMPLATE = Path(__file__).with_name("report.html.j2")
HEADLINE_SPLIT = "test"
TAGS = {"good": "better", "bad": "worse", "open": "undecided"}
SPLIT_ABOUT = {
    "test": "the headline",
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
SURE, EVEN = 0.8, 0.5  # words below the one are underlined, below the other their probability is written too
TINT_PERCENT = 55  # of a word with probability 0
LOOPING_PERCENT, MOST_FREQUENT_PERCENT = 1, 20  # above these the verdict says so


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict; `tone` is good, bad or open."""

    tone: str
    tag: str
    text: str


def tone(difference: Mapping[str, Any]) -> str:
    """`good` if the whole interval of a difference is above 0, `bad` if below, else `open`."""
    if difference["low"] > 0:
        return "good"
    return "bad" if difference["high"] < 0 else "open"


def findings(scores: Mapping[str, Any]) -> list[Finding]:
    """The verdict in sentences: against each rival on the headline split, then forgetting, then what looks wrong."""
    systems = scores["systems"]
    rivals = [key for key in systems if key != "candidate" and HEADLINE_SPLIT in systems[key]["splits"]]
    found = [_against(rival, scores) for rival in rivals]
    return found + _forgetting(scores) + _symptoms(systems["candidate"]["splits"][HEADLINE_SPLIT]["collapse"])


def _against(rival: str, scores: Mapping[str, Any]) -> Finding:
    rows = {row["metric"]: row for row in _on(scores, HEADLINE_SPLIT) if row["against"] == rival}
    compared = shown(VERDICT, rows)
    tones = {tone(rows[metric.key]) for metric in compared}
    way = "bad" if "bad" in tones else "good" if "good" in tones else "open"
    amounts = "; ".join(_amount(metric, rows[metric.key]) for metric in compared)
    return Finding(way, TAGS[way], f"Against {scores['systems'][rival]['in_a_sentence']}: {amounts}.")


def _amount(metric: Metric, row: Mapping[str, Any]) -> str:
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


def render_report(scores: Mapping[str, Any], gallery: Mapping[str, Sequence[Card]]) -> str:
    """The page. `scores` is scores.json; `gallery` holds cards for the parts random, worst and best."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    helpers: dict[str, Any] = {"clamp": _clamp, "mark": mark, "tint": tint}
    environment.globals.update(helpers)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(view(scores, gallery))


def view(scores: Mapping[str, Any], gallery: Mapping[str, Sequence[Card]]) -> dict[str, Any]:
    """All that the template shows, ready to print."""
    systems = [{"key": key, **system} for key, system in scores["systems"].items()]
    ours = scores["systems"]["candidate"]
    measured = ours["splits"][HEADLINE_SPLIT]["metrics"]
    columns = shown(HEADLINE, measured)
    n = ours["splits"][HEADLINE_SPLIT]["n"]
    return {
        "scores": scores,
        "ours": ours,
        "systems": systems,
        "n": n,
        "headline": headline(scores),
        "notes": ours["splits"][HEADLINE_SPLIT]["notes"],
        "lede": f"{ours['about']}. Measured with the captioner that serves, on {n:,} pictures that it has never seen.",
        "findings": findings(scores),
        "tiles": columns[:4],
        "columns": columns,
        "slots": slot_metrics(measured),
        "split_columns": columns[:3],
        "slice_columns": shown(columns[:3], scores["slices"][0]["metrics"] if scores["slices"] else {}),
        "ends": {metric.key: axis_end(metric, _estimates(scores, metric)) for metric in METRICS},
        "differences": _differences(scores),
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
    """How a word is marked, so that colour is not all that tells: `doubtful`, `unsure`, or "" for a sure one."""
    return "doubtful" if probability < EVEN else "unsure" if probability < SURE else ""


def tint(probability: float) -> int:
    """How strongly a word is tinted, in per cent of the colour of doubt."""
    return round(TINT_PERCENT * (1 - probability))


def _estimates(scores: Mapping[str, Any], metric: Metric) -> list[Mapping[str, Any]]:
    measured = [split["metrics"] for system in scores["systems"].values() for split in system["splits"].values()]
    measured += [row["metrics"] for row in scores["slices"]]
    return [metrics[metric.key] for metrics in measured if metric.key in metrics]


def _is_shown(row: Mapping[str, Any]) -> bool:
    """The page keeps to the metrics of the verdict, and to rivals worth a look; scores.json has all."""
    return row["metric"] in {metric.key for metric in VERDICT} and row["against"] != "most_frequent"


def _differences(scores: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Those worth a look, grouped by rival and split."""
    rows = [_difference(row, scores) for row in scores["differences"] if _is_shown(row)]
    return [list(group) for _, group in groupby(rows, key=lambda row: (row["against"], row["split"]))]


def _difference(row: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    metric = next(metric for metric in METRICS if metric.key == row["metric"])
    way = tone(row)
    label = scores["systems"][row["against"]]["label"]
    return {**row, "metric": metric, "label": label, "tone": way, "tag": TAGS[way]}


def _splits(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    ours = scores["systems"]["candidate"]["splits"]
    return [
        {
            "name": name,
            "n": split["n"],
            "about": SPLIT_ABOUT.get(name, "held out on purpose"),
            "rows": sum(name in system["splits"] for system in scores["systems"].values()),
        }
        for name, split in ours.items()
    ]


def _splits_note(scores: Mapping[str, Any]) -> str:
    hard = [name for name in scores["systems"]["candidate"]["splits"] if name.startswith("test_")]
    if not hard:
        return "The same measures on the other splits."
    names = ", ".join(hard)
    return f"The hard splits ({names}) hold out a whole kind of picture, so nothing like it was ever trained on."


def _clamp(percent: float) -> str:
    return f"{min(max(percent, 0.0), 100.0):.2f}"
