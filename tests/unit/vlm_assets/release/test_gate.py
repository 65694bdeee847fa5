"""The gate's rules, one by one."""

from typing import Any

import pytest

from vlm_assets.errors import GateError
from vlm_assets.release.assets import decide
from vlm_assets.release.gate import GateConfig, Verdict, judge

FINE = {"empty_share": 0.0, "looping_share": 0.0, "most_frequent_share": 0.02}


def difference(against: str, low: float, split: str = "test", metric: str = "cider") -> dict[str, Any]:
    return {"against": against, "split": split, "metric": metric, "value": low + 1, "low": low, "high": low + 2}


def scores(*differences: dict[str, Any], champion: bool = False, **collapse: float) -> dict[str, Any]:
    systems: dict[str, Any] = {"candidate": {"splits": {"test": {"collapse": {**FINE, **collapse}}}}}
    return {"systems": systems | ({"champion": {}} if champion else {}), "differences": list(differences)}


ABOVE = (difference("copy", 0.5), difference("most_frequent", 3.0))


def broken(verdict: Verdict) -> list[str]:
    return [rule.rule for rule in verdict.rules if not rule.passed]


@pytest.mark.parametrize(
    ("given", "config", "expected"),
    [
        (scores(*ABOVE), GateConfig(), []),
        (scores(difference("copy", -0.1), ABOVE[1]), GateConfig(), ["beats_baselines"]),
        (scores(ABOVE[0]), GateConfig(), ["beats_baselines"]),  # a comparison that is missing is not a pass
        (scores(difference("copy", -0.1), ABOVE[1]), GateConfig(beat_baselines=False), []),
        (scores(*ABOVE, difference("copy", -3, split="test_unseen")), GateConfig(), []),  # only the headline decides
        (scores(*ABOVE, difference("copy", -3, metric="bleu_4")), GateConfig(), []),
        (scores(*ABOVE, difference("champion", 0.1), champion=True), GateConfig(), []),
        (scores(*ABOVE, difference("champion", 0.0), champion=True), GateConfig(), ["not_worse_than_champion"]),
        (scores(*ABOVE, difference("champion", -0.1), champion=True), GateConfig(champion_margin=0.2), []),
        (scores(*ABOVE, champion=True), GateConfig(), ["not_worse_than_champion"]),
        (scores(*ABOVE, empty_share=0.01), GateConfig(), ["no_collapse"]),
        (scores(*ABOVE, looping_share=0.02), GateConfig(), ["no_collapse"]),
        (scores(*ABOVE, most_frequent_share=0.3), GateConfig(), ["no_collapse"]),
        (scores(difference("copy", -1), most_frequent_share=1.0), GateConfig(), ["beats_baselines", "no_collapse"]),
    ],
)
def test_each_rule_holds_and_breaks_where_it_should(
    given: dict[str, Any], config: GateConfig, expected: list[str]
) -> None:
    verdict = judge(given, config)
    assert broken(verdict) == expected
    assert verdict.passed == (not expected)


def test_a_verdict_survives_being_written_down() -> None:
    verdict = judge(scores(*ABOVE, empty_share=0.5), GateConfig())
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_a_refusal_gives_figures_limits_and_the_way_out() -> None:
    verdict = judge(scores(*ABOVE, most_frequent_share=0.31), GateConfig())
    with pytest.raises(
        GateError, match=r"may not be released: most frequent share 31\.0 % \(limit 20 %\).*force_reason"
    ):
        decide(verdict, "")


def test_a_forced_release_says_so_and_against_what() -> None:
    verdict = judge(scores(*ABOVE, most_frequent_share=0.31), GateConfig())
    assert decide(verdict, "demo tomorrow").startswith("forced: demo tomorrow (against: most frequent share 31.0 %")
