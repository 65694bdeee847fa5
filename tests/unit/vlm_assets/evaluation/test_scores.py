"""All metrics of one split together: values, intervals, JSON."""

import json

import numpy as np
import pytest

from tests.unit.vlm_assets.evaluation.golden_metrics import SCORES
from vlm_assets.errors import ConfigError, CorpusError
from vlm_assets.evaluation.bleu import bleu, bleu_from_sums
from vlm_assets.evaluation.scores import Scores, bleu_differences, exact_matches, score_captions
from vlm_assets.evaluation.tokenizer import tokenize

NAMES = {*(f"bleu_{order}" for order in (1, 2, 3, 4)), "rouge_l", "cider", "exact_match"}
NAMES |= {"distinct_share", "most_frequent_share"}


@pytest.mark.parametrize("name", SCORES)
def test_from_text_to_the_reference_scores(name: str) -> None:
    golden = SCORES[name]
    found = score_captions(golden["candidates"], golden["references"], resamples=10)
    for order, value in enumerate(golden["bleu"], start=1):
        assert found.metrics[f"bleu_{order}"].value == pytest.approx(value, abs=1e-9)
    for metric in ("rouge_l", "cider"):
        assert found.metrics[metric].value == pytest.approx(golden[metric], abs=1e-9)
        np.testing.assert_allclose(found.items[metric], golden[f"{metric}_items"], atol=1e-9)


def test_every_metric_has_an_interval_around_it() -> None:
    golden = SCORES["varied"]
    found = score_captions(golden["candidates"], golden["references"], resamples=200)
    assert set(found.metrics) == NAMES
    for estimate in found.metrics.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == len(golden["candidates"])


def test_the_mean_of_the_items_is_the_metric() -> None:
    golden = SCORES["varied"]
    found = score_captions(golden["candidates"], golden["references"], resamples=10)
    assert set(found.items) == {"rouge_l", "cider", "exact_match"}
    for name, values in found.items.items():
        assert values.mean() == pytest.approx(found.metrics[name].value)


def test_the_interval_of_bleu_is_that_of_whole_resampled_corpora() -> None:
    candidates, references = SCORES["varied"]["candidates"], SCORES["varied"]["references"]
    mine, theirs = tokenize(candidates), [tokenize(texts) for texts in references]
    generator = np.random.default_rng(0)
    size = len(mine)
    draws = [generator.integers(size, size=size) for _ in range(100)]
    scores = [bleu([mine[row] for row in rows], [theirs[row] for row in rows]).corpus[3] for rows in draws]
    found = score_captions(candidates, references, resamples=100, seed=0).metrics["bleu_4"]
    assert (found.low, found.high) == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=2e-3)


def test_exact_match_forgives_case_blanks_and_the_full_stop_only() -> None:
    candidates = ["A red  bus.", "a red bus", "a red, bus", "red bus a"]
    assert exact_matches(candidates, [["x", "a red bus"]] * 4).tolist() == [1, 1, 0, 0]


def test_shares() -> None:
    found = score_captions(["a", "A.", "b", "c"], [["a"]] * 4, resamples=10).metrics
    assert found["distinct_share"].value == 0.75
    assert found["most_frequent_share"].value == 0.5
    assert found["exact_match"].value == 0.5


def test_one_picture_carries_the_notes() -> None:
    found = score_captions(["a bus"], [["a bus"]], resamples=10)
    assert found.metrics["cider"].value == 0
    assert list(found.notes) == ["bleu_3", "bleu_4", "cider"]
    assert "corpus of one picture" in found.notes["cider"]
    assert "no reference has 4 words" in found.notes["bleu_4"]


def test_json_round_trip() -> None:
    found = score_captions(["a bus", "a cat"], [["a bus"], ["a dog"]], resamples=10)
    again = Scores.from_json(json.loads(json.dumps(found.to_json())))
    assert again.metrics == found.metrics
    assert again.notes == found.notes
    assert {name: values.tolist() for name, values in again.items.items()} == found.to_json()["items"]


def test_differences_of_bleu_are_those_of_whole_resampled_corpora_in_pairs() -> None:
    candidates, references = SCORES["varied"]["candidates"], SCORES["varied"]["references"]
    worse = [" ".join(text.split()[:-2]) for text in candidates]
    ours, theirs = (score_captions(texts, references, resamples=10).bleu_statistics for texts in (candidates, worse))
    found = bleu_differences(ours, theirs, resamples=200, seed=1)["bleu_4"]
    generator = np.random.default_rng(1)
    size = len(candidates)
    draws = [generator.integers(size, size=size) for _ in range(200)]
    apart = [bleu_from_sums(ours[rows].sum(axis=0))[3] - bleu_from_sums(theirs[rows].sum(axis=0))[3] for rows in draws]
    assert found.p == (1 + sum(change <= 0 for change in apart)) / 201
    assert (found.low, found.high) == pytest.approx(np.quantile(apart, [0.025, 0.975]), abs=5e-3)  # ours: bootstrap-t
    assert found.low <= found.value <= found.high
    same = bleu_differences(ours, ours, resamples=50)["bleu_1"]
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(CorpusError, match="150 pictures against 149"):
        bleu_differences(ours, theirs[1:])


def test_bad_input() -> None:
    with pytest.raises(CorpusError, match="no captions to score"):
        score_captions([], [])
    with pytest.raises(CorpusError, match="2 candidates but 1 lists"):
        score_captions(["a", "b"], [["a"]])
    with pytest.raises(CorpusError, match="Candidate 0 has no reference"):
        score_captions(["a"], [[]])
    with pytest.raises(ConfigError, match="resamples is 0"):
        score_captions(["a"], [["a"]], resamples=0)
