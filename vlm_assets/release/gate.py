"""The gate: which candidate may become champion. Pure: scores in, verdict out.

Each rule compares on the same pictures (paired bootstrap), so a lucky draw of test pictures favours nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg
from pydantic import Field

HEADLINE_SPLIT = "test"
VERDICT = "verdict.json"  # beside the scores that it judges
BASELINES = ("copy", "most_frequent")
CHAMPION = "champion"
ALIKE_MARGIN = 0.2  # how much more often than the commonest reference the commonest caption may come


class GateConfig(dg.Config):
    """What a candidate must reach."""

    beat_baselines: bool = Field(
        default=True,
        description="With 95 % confidence above both baselines in CIDEr and in exact match or BLEU-4. Switch off to "
        "release a first try.",
    )
    champion_margin: float = Field(
        default=0.0,
        ge=0,
        description="How far the lower end of the CIDEr difference to the champion may lie below 0. With 0 the "
        "candidate must be surely better: an equal one is refused.",
    )
    min_pictures: int = Field(
        default=30,
        ge=2,
        description="Independent test pictures that a comparison needs; those of one group, or nearly the same, count "
        "as one. On fewer the gate refuses: intervals do not keep to their level there.",
    )
    max_empty_share: float = Field(default=0.0, ge=0, le=1, description="Share of empty captions allowed.")
    max_looping_share: float = Field(default=0.0, ge=0, le=1, description="Share of captions that repeat themselves.")
    max_most_frequent_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of pictures with one caption; more, up to 20 points above the commonest reference's share, "
        "where the references are alike.",
    )
    slice_min_pictures: int = Field(
        default=30, ge=2, description="Slices of at least this many pictures must not collapse either."
    )


@dataclass(frozen=True)
class RuleResult:
    """One rule: kept or broken, and the figures that say so."""

    rule: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Verdict:
    """All rules together. A candidate passes if every rule does."""

    rules: tuple[RuleResult, ...]

    @property
    def passed(self) -> bool:
        """Whether the candidate may be released."""
        return all(rule.passed for rule in self.rules)

    @property
    def why(self) -> str:
        """The broken rules, or all of them when none is broken."""
        told = [rule for rule in self.rules if not rule.passed] or self.rules
        return "; ".join(rule.why for rule in told)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `from_json` reads it back."""
        return {"passed": self.passed, "rules": [asdict(rule) for rule in self.rules]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Verdict":
        """Read what `to_json` wrote."""
        return cls(tuple(RuleResult(**rule) for rule in value["rules"]))


RULES = {
    "beats_baselines": "CIDEr, and exact match or BLEU-4, are above the most frequent caption's and above those of "
    "copying the nearest training picture's.",
    "not_worse_than_champion": "CIDEr is surely above the champion's on the same pictures, or surely not more than "
    "champion_margin below it; an equal model is refused unless that is set.",
    "no_collapse": "Captions are not empty, do not loop and are not all the same where the references are not.",
    "no_slice_collapses": "Nor are they in any large slice of the pictures.",
    "golden_holds": "The bundle's contract holds: its golden pictures come out as recorded.",
}


def judge(scores: Mapping[str, Any], config: GateConfig) -> Verdict:
    """Apply every rule to the scores of an evaluation report (its scores.json)."""
    headline = [row for row in scores["differences"] if row["split"] == HEADLINE_SPLIT]
    cider = [row for row in headline if row["metric"] == "cider"]
    collapse = scores["systems"]["candidate"]["splits"][HEADLINE_SPLIT]["collapse"]
    return Verdict((
        _baselines(headline, config), _champion(cider, scores, config), _collapse(collapse, config),
        _slices(scores["slices"], config), _golden(scores.get("golden")),
    ))  # fmt: skip


def check_specs() -> list[dg.AssetCheckSpec]:
    """The rules as blocking checks of eval_report: a broken one stops the release."""
    return [
        dg.AssetCheckSpec(name, asset="eval_report", blocking=True, description=text) for name, text in RULES.items()
    ]


def check_results(verdict: Verdict) -> list[dg.AssetCheckResult]:
    """The verdict as Dagster shows it."""
    return [
        dg.AssetCheckResult(check_name=rule.rule, passed=rule.passed, description=rule.why) for rule in verdict.rules
    ]


def _baselines(differences: Sequence[Mapping[str, Any]], config: GateConfig) -> RuleResult:
    rule = "beats_baselines"
    rows = {(row["against"], row["metric"]): row for row in differences if row["against"] in BASELINES}
    said = ", ".join(f"{name} {_difference(row)}" for (name, metric), row in rows.items() if metric == "cider")
    if not config.beat_baselines:
        return RuleResult(rule, True, f"not required; CIDEr against {said}")
    missing = [name for name in BASELINES if (name, "cider") not in rows]
    if missing:
        return RuleResult(rule, False, f"no comparison with {', '.join(missing)} in the report")
    if few := _too_few([row for (_, metric), row in rows.items() if metric == "cider"], config):
        return RuleResult(rule, False, few)
    passed = all(row["low"] > 0 for (_, metric), row in rows.items() if metric == "cider")
    if not passed:
        return RuleResult(rule, False, f"CIDEr not surely above {said}")
    for name in BASELINES:
        exact, bleu = (rows.get((name, metric)) for metric in ("exact_match", "bleu_4"))
        if not any(row and row["low"] > 0 for row in (exact, bleu)):
            told = ", ".join(
                f"{label} {_difference(row)}" for label, row in (("exact match", exact), ("BLEU-4", bleu)) if row
            )
            return RuleResult(rule, False, f"neither exact match nor BLEU-4 surely above {name}: {told or 'not there'}")
    return RuleResult(rule, True, f"CIDEr above {said}; so is exact match or BLEU-4")


def _champion(differences: Sequence[Mapping[str, Any]], scores: Mapping[str, Any], config: GateConfig) -> RuleResult:
    rule = "not_worse_than_champion"
    row = next((row for row in differences if row["against"] == CHAMPION), None)
    if row is None:
        expected = CHAMPION in scores["systems"]
        return RuleResult(rule, not expected, _not_compared(scores) if expected else "no other champion yet")
    if few := _too_few([row], config):
        return RuleResult(rule, False, f"{few}{_left_out(scores)}")
    passed = row["low"] > -config.champion_margin
    limit = f"the lower end must be above {0 - config.champion_margin:g}"
    told = f"CIDEr against the champion {_difference(row)}; {limit}{_left_out(scores)}"
    return RuleResult(rule, passed, told)


def _too_few(rows: Sequence[Mapping[str, Any]], config: GateConfig) -> str:
    """Why the gate does not decide on these comparisons; "" if it does."""
    row = min(rows, key=lambda row: row["clusters"])
    if row["clusters"] >= config.min_pictures:
        return ""
    return (
        f"only {row['clusters']} independent test pictures (of {row['n']}) for the comparison with {row['against']}, "
        f"the gate needs {config.min_pictures}: give validated_splits more for test, or lower gate.min_pictures"
    )


def _left_out(scores: Mapping[str, Any]) -> str:
    count = scores["systems"][CHAMPION]["splits"][HEADLINE_SPLIT]["left_out"]
    return f"; {count} test pictures left out, on which the champion was trained" if count else ""


def _not_compared(scores: Mapping[str, Any]) -> str:
    split = scores["systems"][CHAMPION].get("splits", {}).get(HEADLINE_SPLIT)
    if split and split["left_out"] == split["n"]:
        return f"the champion was trained on all {split['n']} test pictures, so it was not compared"
    return "the champion was not compared"


def most_frequent_limit(collapse: Mapping[str, Any], limit: float) -> float:
    """How often one caption may come: `limit`, or more where the pictures' own references are as much alike."""
    return min(max(limit, collapse["most_frequent_reference_share"] + ALIKE_MARGIN), 1.0)


def _collapse(collapse: Mapping[str, Any], config: GateConfig) -> RuleResult:
    limits = {
        "empty_share": config.max_empty_share,
        "looping_share": config.max_looping_share,
        "most_frequent_share": most_frequent_limit(collapse, config.max_most_frequent_share),
    }
    broken = [name for name, limit in limits.items() if collapse[name] > limit]
    told = broken or list(limits)
    text = ", ".join(
        f"{name.replace('_', ' ')} {100 * collapse[name]:.1f} % (limit {100 * limits[name]:.3g} %)" for name in told
    )
    return RuleResult("no_collapse", not broken, text)


def _slices(slices: Sequence[Mapping[str, Any]], config: GateConfig) -> RuleResult:
    """As for the whole: one caption for many pictures is fine where their references are as much alike."""
    large = [piece for piece in slices if piece["n"] >= config.slice_min_pictures]
    found = [(piece, _collapse(piece["collapse"], config)) for piece in large]
    broken = [
        f"{piece['kind']} {piece['name']} (n = {piece['n']}): {result.why}"
        for piece, result in found
        if not result.passed
    ]
    if broken:
        return RuleResult("no_slice_collapses", False, "; ".join(broken))
    return RuleResult(
        "no_slice_collapses", True, f"in none of {len(large)} slices of {config.slice_min_pictures} pictures or more"
    )


def _golden(golden: Mapping[str, Any] | None) -> RuleResult:
    if golden is None or (not golden["pictures"] and not golden["problem"]):
        return RuleResult("golden_holds", False, "no golden picture was checked")
    if golden["problem"]:
        return RuleResult("golden_holds", False, golden["problem"])
    return RuleResult("golden_holds", True, f"{golden['pictures']} golden pictures as recorded")


def _difference(row: Mapping[str, Any]) -> str:
    return f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
