"""The gate's rules, one by one."""

from typing import Any

import pytest

from vlm_assets.release.gate import GateConfig, Verdict, judge

FINE = {
    "empty_share": 0.0,
    "looping_share": 0.0,
    "most_frequent_share": 0.02,
    "most_frequent_reference_share": 0.02,
}


def difference(
    against: str, low: float, split: str = "test", metric: str = "cider", clusters: int = 30
) -> dict[str, Any]:
    ends = {"value": low + 1, "low": low, "high": low + 2, "n": 60, "clusters": clusters}
    return {"against": against, "split": split, "metric": metric, **ends}


def scores(
    *differences: dict[str, Any], champion: bool = False, left_out: int = 0, **collapse: float
) -> dict[str, Any]:
    past = {"splits": {"test": {"n": 60, "left_out": left_out}}}
    systems: dict[str, Any] = {"candidate": {"splits": {"test": {"collapse": {**FINE, **collapse}}}}}
    return {
        "systems": systems | ({"champion": past} if champion else {}),
        "differences": list(differences),
        "slices": [piece(40), piece(12, most_frequent_share=1.0)],
        "golden": {"pictures": 2, "problem": ""},
    }


def piece(n: int, **collapse: float) -> dict[str, Any]:
    return {"kind": "colour", "name": "red", "n": n, "collapse": {**FINE, **collapse}}


ABOVE = (
    difference("copy", 0.5), difference("most_frequent", 3.0),
    difference("copy", 0.1, metric="exact_match"), difference("copy", -0.1, metric="bleu_4"),
    difference("most_frequent", -0.1, metric="exact_match"), difference("most_frequent", 0.1, metric="bleu_4"),
)  # fmt: skip


def broken(verdict: Verdict) -> list[str]:
    return [rule.rule for rule in verdict.rules if not rule.passed]


@pytest.mark.parametrize(
    ("given", "config", "expected"),
    [
        (scores(*ABOVE), GateConfig(), []),
        (scores(difference("copy", -0.1), *ABOVE[1:]), GateConfig(), ["beats_baselines"]),
        (scores(ABOVE[0], ABOVE[1], *ABOVE[3:]), GateConfig(), ["beats_baselines"]),  # CIDEr alone is not enough
        (scores(*ABOVE[:2]), GateConfig(), ["beats_baselines"]),
        (scores(ABOVE[0]), GateConfig(), ["beats_baselines"]),  # a comparison that is missing is not a pass
        (scores(difference("copy", -0.1), ABOVE[1]), GateConfig(beat_baselines=False), []),
        (scores(*ABOVE, difference("copy", -3, split="test_unseen")), GateConfig(), []),  # only the headline decides
        (scores(*ABOVE, difference("champion", 0.1), champion=True), GateConfig(), []),
        (scores(*ABOVE, difference("champion", 0.0), champion=True), GateConfig(), ["not_worse_than_champion"]),
        (scores(*ABOVE, difference("champion", -0.1), champion=True), GateConfig(champion_margin=0.2), []),
        (scores(*ABOVE, champion=True), GateConfig(), ["not_worse_than_champion"]),
        (scores(*ABOVE, empty_share=0.01), GateConfig(), ["no_collapse"]),
        (scores(*ABOVE, looping_share=0.001), GateConfig(), ["no_collapse"]),
        (scores(*ABOVE, most_frequent_share=0.3), GateConfig(), ["no_collapse"]),
        # a perfect captioner of pictures of which 45 % have one reference
        (scores(*ABOVE, most_frequent_share=0.45, most_frequent_reference_share=0.45), GateConfig(), []),
        (scores(*ABOVE, most_frequent_share=0.66, most_frequent_reference_share=0.45), GateConfig(), ["no_collapse"]),
        (scores(difference("copy", -1), most_frequent_share=1.0), GateConfig(), ["beats_baselines", "no_collapse"]),
    ],
)
def test_each_rule_holds_and_breaks_where_it_should(
    given: dict[str, Any], config: GateConfig, expected: list[str]
) -> None:
    verdict = judge(given, config)
    assert broken(verdict) == expected
    assert verdict.passed == (not expected)


def test_too_few_independent_pictures_decide_nothing() -> None:
    few = tuple({**row, "clusters": 12} for row in ABOVE)
    verdict = judge(scores(*few), GateConfig())
    assert broken(verdict) == ["beats_baselines"]
    assert verdict.why == (
        "only 12 independent test pictures (of 60) for the comparison with copy, the gate needs 30: give "
        "validated_splits more for test, or lower gate.min_pictures"
    )
    assert judge(scores(*few), GateConfig(min_pictures=12)).passed
    champion = difference("champion", 0.1, clusters=29)
    verdict = judge(scores(*ABOVE, champion, champion=True, left_out=31), GateConfig())
    assert broken(verdict) == ["not_worse_than_champion"]
    assert verdict.why.startswith("only 29 independent test pictures (of 60) for the comparison with champion")
    assert verdict.why.endswith("; 31 test pictures left out, on which the champion was trained")


def test_pictures_that_trained_the_champion_are_told_and_none_left_is_no_pass() -> None:
    verdict = judge(scores(*ABOVE, difference("champion", 0.1), champion=True, left_out=4), GateConfig())
    assert verdict.passed
    assert "the lower end must be above 0; 4 test pictures left out, on which the champion was trained" in verdict.why
    verdict = judge(scores(*ABOVE, champion=True, left_out=60), GateConfig())
    assert verdict.why == "the champion was trained on all 60 test pictures, so it was not compared"


@pytest.mark.parametrize(
    ("bad", "passed"),
    [
        (piece(30, most_frequent_share=0.3), False),
        (piece(29, most_frequent_share=0.3), True),
        (piece(30, empty_share=0.04), False),
        (piece(30, looping_share=0.04), False),
        (piece(30, most_frequent_share=0.9, most_frequent_reference_share=0.8), True),  # the pictures are alike
        (piece(30, most_frequent_share=0.9, most_frequent_reference_share=0.5), False),
    ],
)
def test_no_large_slice_may_collapse(bad: dict[str, Any], passed: bool) -> None:
    verdict = judge({**scores(*ABOVE), "slices": [piece(40), bad]}, GateConfig())
    assert broken(verdict) == ([] if passed else ["no_slice_collapses"])
    if not passed:
        assert "colour red (n = 30): " in verdict.why


@pytest.mark.parametrize(
    ("golden", "why"),
    [
        (None, "no golden picture was checked"),
        ({"pictures": 0, "problem": ""}, "no golden picture was checked"),
        ({"pictures": 0, "problem": "Golden picture a.png: weights differ."}, "Golden picture a.png: weights differ."),
    ],
)
def test_the_golden_pictures_must_hold(golden: dict[str, Any] | None, why: str) -> None:
    verdict = judge({**scores(*ABOVE), "golden": golden}, GateConfig())
    assert broken(verdict) == ["golden_holds"]
    assert verdict.why == why


def test_a_verdict_survives_being_written_down() -> None:
    verdict = judge(scores(*ABOVE, empty_share=0.5), GateConfig())
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_the_limit_that_stands_in_the_words_is_the_one_that_was_applied() -> None:
    verdict = judge(scores(*ABOVE, most_frequent_share=0.7, most_frequent_reference_share=0.45), GateConfig())
    assert verdict.why == "most frequent share 70.0 % (limit 65 %)"
