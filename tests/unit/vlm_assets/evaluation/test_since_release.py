"""The champion now against itself at its release: what both test sets hold cancels out, luck is not called a loss."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from vlm_assets.evaluation.config import ChampionConfig
from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.scores import score_captions
from vlm_assets.evaluation.since_release import change_since, no_comparison, verdict

CONFIG = ChampionConfig(resamples=200)
THINGS = ("red square", "blue circle", "green hat", "white cat", "black dog", "yellow car")


def table(pictures: Sequence[int], right: Sequence[bool], clusters: Sequence[str] = ()) -> CaptionTable:
    """Picture n shows one of THINGS; it is named rightly or called something that no picture shows."""
    shown = [THINGS[number % len(THINGS)] for number in pictures]
    columns = {
        "image_id": [str(number) for number in pictures],
        "caption": [f"a {thing}" if ok else "an old tree" for thing, ok in zip(shown, right, strict=True)],
        "references": [[f"a {thing}"] for thing in shown],
        "cluster": list(clusters) or [str(number) for number in pictures],
    }
    return pa.table(columns)


def some(count: int, share: float, seed: int) -> list[bool]:
    return (np.random.default_rng(seed).random(count) < share).tolist()


def test_the_same_pictures_captioned_alike_are_no_change_at_all() -> None:
    same = table(range(60), some(60, 0.7, seed=1))
    found = change_since(same, same, CONFIG)
    assert found["pictures"] == {"now": 60, "then": 60, "both": 60}
    for metric in found["metrics"].values():
        assert (metric["value"], metric["low"], metric["high"]) == (0, 0, 0)
    alone = score_captions(same["caption"].to_pylist(), same["references"].to_pylist(), resamples=100)
    assert found["metrics"]["cider"]["then"] == pytest.approx(alone.metrics["cider"].value)
    assert verdict(found)[0]


def test_new_pictures_that_it_does_not_know_are_a_sure_loss() -> None:
    then = table(range(60), [True] * 60)
    now = table(range(100), [True] * 60 + [False] * 40)
    found = change_since(now, then, CONFIG)
    exact = found["metrics"]["exact_match"]
    assert (exact["now"], exact["then"], exact["value"]) == (0.6, 1.0, pytest.approx(-0.4))
    assert -0.55 < exact["low"] < -0.4 < exact["high"] < -0.25
    holds, why = verdict(found)
    assert not holds
    assert why.startswith("CIDEr is surely lower than at its release: ")
    assert "4.50 now, 7.50 then, -3.00 (-3." in why
    assert verdict(change_since(then, now, CONFIG))[0]  # getting better is no reason to warn


def test_what_both_hold_makes_the_answer_surer() -> None:
    right = some(240, 0.7, seed=2)
    then = table(range(120), right[:120])
    overlapping = change_since(table(range(20, 140), right[20:140]), then, CONFIG)["metrics"]["exact_match"]
    apart = change_since(table(range(120, 240), right[120:]), then, CONFIG)["metrics"]["exact_match"]
    assert overlapping["high"] - overlapping["low"] < 0.6 * (apart["high"] - apart["low"])


def test_pictures_of_one_cluster_count_once() -> None:
    then, right = table(range(60), some(60, 0.7, seed=3)), some(120, 0.7, seed=4)
    alone = change_since(table(range(100, 220), right), then, CONFIG)["metrics"]["exact_match"]
    alike = [ok for ok in right[:40] for _ in range(3)]  # three of each
    trios = [str(number // 3) for number in range(120)]
    together = change_since(table(range(100, 220), alike, trios), then, CONFIG)["metrics"]["exact_match"]
    assert together["high"] - together["low"] > alone["high"] - alone["low"]


def test_another_draw_of_equal_pictures_is_rarely_called_a_loss() -> None:
    losses = 0
    for draw in range(60):
        right = some(160, 0.7, seed=draw)
        found = change_since(table(range(80), right[:80]), table(range(80, 160), right[80:]), CONFIG)
        losses += not verdict(found)[0]
    assert losses <= 4  # 2.5 % are promised: 1.5 of 60


def test_too_few_pictures_are_not_compared_and_never_warn() -> None:
    few = table(range(60), [False] * 60, [str(number // 3) for number in range(60)])
    found = change_since(few, table(range(60), [True] * 60), CONFIG)
    why = "not compared with its release: 20 independent test pictures on one side, and min_pictures is 30"
    assert verdict(found) == (True, why)
    assert verdict(no_comparison("gone")) == (True, "not compared with its release: gone")
