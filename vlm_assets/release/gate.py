"""The gate: which candidate may become champion. Pure: scores in, verdict out.

Each rule compares on the same pictures (paired bootstrap), so a lucky draw of test pictures favours nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg
from pydantic import Field

HEADLINE_SPLIT = "test"
BASELINES = ("copy", "most_frequent")
CHAMPION = "champion"


class GateConfig(dg.Config):
    """What a candidate must reach."""

    beat_baselines: bool = Field(
        default=True, description="CIDEr above both baselines with 95 % confidence. Switch off to release a first try."
    )
    champion_margin: float = Field(
        default=0.0, ge=0, description="How far the lower end of the CIDEr difference to the champion may lie below 0."
    )
    max_empty_share: float = Field(default=0.0, ge=0, le=1, description="Share of empty captions allowed.")
    max_looping_share: float = Field(default=0.01, ge=0, le=1, description="Share of captions that repeat themselves.")
    max_most_frequent_share: float = Field(default=0.2, ge=0, le=1, description="Share of pictures with one caption.")


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
    "beats_baselines": "CIDEr is above the most frequent caption and above copying the nearest training picture.",
    "not_worse_than_champion": "CIDEr is not below the current champion's on the same pictures.",
    "no_collapse": "Captions are not empty, do not loop and are not all the same.",
}


def judge(scores: Mapping[str, Any], config: GateConfig) -> Verdict:
    """Apply every rule to the scores of an evaluation report (its scores.json)."""
    differences = [row for row in scores["differences"] if row["split"] == HEADLINE_SPLIT and row["metric"] == "cider"]
    collapse = scores["systems"]["candidate"]["splits"][HEADLINE_SPLIT]["collapse"]
    return Verdict(
        (_baselines(differences, config), _champion(differences, scores, config), _collapse(collapse, config))
    )


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
    rows = {row["against"]: row for row in differences if row["against"] in BASELINES}
    said = ", ".join(f"{name} {_difference(row)}" for name, row in rows.items())
    if not config.beat_baselines:
        return RuleResult("beats_baselines", True, f"not required; CIDEr against {said}")
    missing = [name for name in BASELINES if name not in rows]
    if missing:
        return RuleResult("beats_baselines", False, f"no comparison with {', '.join(missing)} in the report")
    passed = all(row["low"] > 0 for row in rows.values())
    return RuleResult("beats_baselines", passed, f"CIDEr {'above' if passed else 'not surely above'} {said}")


def _champion(differences: Sequence[Mapping[str, Any]], scores: Mapping[str, Any], config: GateConfig) -> RuleResult:
    rule = "not_worse_than_champion"
    row = next((row for row in differences if row["against"] == CHAMPION), None)
    if row is None:
        expected = CHAMPION in scores["systems"]
        return RuleResult(rule, not expected, "the champion was not compared" if expected else "no other champion yet")
    passed = row["low"] > -config.champion_margin
    limit = f"the lower end must be above {-config.champion_margin:g}"
    return RuleResult(rule, passed, f"CIDEr against the champion {_difference(row)}; {limit}")


def _collapse(collapse: Mapping[str, Any], config: GateConfig) -> RuleResult:
    limits = {
        "empty_share": config.max_empty_share,
        "looping_share": config.max_looping_share,
        "most_frequent_share": config.max_most_frequent_share,
    }
    broken = [name for name, limit in limits.items() if collapse[name] > limit]
    told = broken or list(limits)
    text = ", ".join(
        f"{name.replace('_', ' ')} {100 * collapse[name]:.1f} % (limit {100 * limits[name]:g} %)" for name in told
    )
    return RuleResult("no_collapse", not broken, text)


def _difference(row: Mapping[str, Any]) -> str:
    return f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
