"""BLEU, ROUGE-L and CIDEr: equal to the reference within 1e-9, and the properties that any such metric has."""

import random
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vlm_assets.evaluation.golden_metrics import SCORES
from vlm_assets.errors import CorpusError
from vlm_assets.evaluation.bleu import bleu
from vlm_assets.evaluation.cider import cider
from vlm_assets.evaluation.coco import coco_scores
from vlm_assets.evaluation.corpus import Tokens
from vlm_assets.evaluation.rouge import rouge_l
from vlm_assets.evaluation.tokenizer import tokenize

captions = st.lists(st.sampled_from("abcdefg"), max_size=9)
# Texts of every kind of part that captions have, and long ones that say the same again and again.
PARTS = [
    *"ab",
    "red",
    "Bus",
    "don't",
    "it’s",
    "“big”",
    "(x)",
    "2",
    "1/2",
    "3.5",
    "$5",
    "U.S.",
    "é",
    "中",
    "😀",
    "👩🏽‍🔬",
    "...",
    "-",
]
texts = st.lists(st.sampled_from(PARTS), max_size=12).map(" ".join) | st.text(max_size=12)
long_texts = st.builds(lambda text, times: " ".join([text] * times), texts, st.integers(1, 20))
written = st.lists(
    st.tuples(texts | long_texts, st.lists(texts | long_texts, min_size=1, max_size=6)), min_size=1, max_size=6
)
pairs = st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=4)), min_size=1, max_size=8)
Pairs = list[tuple[list[str], list[list[str]]]]


def split(corpus: Pairs) -> tuple[list[list[str]], list[list[list[str]]]]:
    return [mine for mine, _ in corpus], [theirs for _, theirs in corpus]


@pytest.mark.parametrize("name", SCORES)
def test_golden(name: str) -> None:
    golden: dict[str, Any] = SCORES[name]
    mine, theirs = tokenize(golden["candidates"]), [tokenize(texts) for texts in golden["references"]]
    found = bleu(mine, theirs)
    assert_equal(found.corpus, golden["bleu"])
    assert_equal(found.items, golden["bleu_items"])
    found = rouge_l(mine, theirs)
    assert_equal(found.corpus, golden["rouge_l"])
    assert_equal(found.items, golden["rouge_l_items"])
    found = cider(mine, theirs)
    assert_equal(found.corpus, golden["cider"])
    assert_equal(found.items, golden["cider_items"])


@given(pairs)
def test_bounds(corpus: Pairs) -> None:
    mine, theirs = split(corpus)
    for values, top in (
        (bleu(mine, theirs).items, 1),
        (rouge_l(mine, theirs).items, 1),
        (cider(mine, theirs).items, 10),
    ):
        assert (values >= 0).all()
        assert (values <= top + 1e-9).all()
    assert all(0 <= value <= 1 + 1e-9 for value in bleu(mine, theirs).corpus)


@given(pairs, st.randoms(use_true_random=False))
def test_order_of_pictures_and_of_references_does_not_matter(corpus: Pairs, chance: Any) -> None:
    shuffled = [(mine, chance.sample(theirs, len(theirs))) for mine, theirs in chance.sample(corpus, len(corpus))]
    for metric in (bleu, rouge_l, cider):
        first, second = metric(*split(corpus)).corpus, metric(*split(shuffled)).corpus
        np.testing.assert_allclose(first, second, rtol=0, atol=1e-12)


def test_identical_captions_score_the_maximum() -> None:
    mine = [list("abcde"), list("fghij"), list("klmno")]
    theirs = [[text] for text in mine]
    np.testing.assert_allclose(bleu(mine, theirs).corpus, 1, atol=1e-8)
    np.testing.assert_allclose(rouge_l(mine, theirs).items, 1)
    np.testing.assert_allclose(cider(mine, theirs).items, 10)


def test_nothing_in_common_scores_zero() -> None:
    mine, theirs = [list("abcde"), list("fghij")], [[list("vwxyz")], [list("qrstu")]]
    np.testing.assert_allclose(bleu(mine, theirs).items, 0, atol=1e-6)
    assert rouge_l(mine, theirs).corpus == 0
    assert cider(mine, theirs).corpus == 0


def test_rouge_takes_precision_and_recall_from_different_references() -> None:
    found = rouge_l(
        [["a", "b"]], [[["a", "b", "x", "y"], ["a"]]]
    )  # precision 2/2 of the first, recall 1/1 of the second
    assert found.corpus == pytest.approx(1)


def test_bleu_takes_the_shorter_of_two_equally_close_references() -> None:
    found = bleu([list("abcd")], [[list("abcde"), list("abc")]])
    assert found.statistics[0, 1] == 3


def test_bleu_clips_repeated_words() -> None:
    assert bleu([["a"] * 4], [[["a", "b", "c", "d"]]]).corpus[0] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("mine", "theirs", "note"),
    [
        ([["a", "bus"]], [[["a", "bus"]]], "CIDEr is 0 for a corpus of one picture"),
        ([["a"], ["b"]], [[["a"]], [["a"]]], "CIDEr is 0 where all pictures have references of the same words"),
        ([["a"], ["b"]], [[[]], [[]]], "CIDEr is 0 where no reference has a word"),
        ([["a"], ["b"]], [[["a"]], [["b"]]], ""),
    ],
)
def test_cider_says_when_it_cannot_but_be_zero(mine: list[Tokens], theirs: Any, note: str) -> None:
    found = cider(mine, theirs)
    assert found.note.startswith(note)
    assert bool(found.note) == bool(note)
    assert (found.corpus == 0) == bool(note)


def test_bleu_and_rouge_say_when_the_references_are_too_short() -> None:
    found = bleu([["a", "red", "bus"]], [[["a", "red", "bus"], ["bus"]]])
    assert found.corpus[:3] == pytest.approx((1, 1, 1))
    assert found.notes[:3] == ("", "", "")
    assert found.notes[3].startswith("BLEU-4 says nothing here: no reference has 4 words")
    assert rouge_l([["a"]], [[[]]]).note.startswith("ROUGE-L says nothing here")
    assert rouge_l([[]], [[["a"]]]).note == ""


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider])
@pytest.mark.parametrize(
    ("mine", "theirs", "message"),
    [
        ([], [], "no captions to score"),
        ([["a"]], [], "1 candidates but 0 lists of references"),
        ([["a"], ["b"]], [[["a"]], []], "Candidate 1 has no reference"),
        (["a bus", "cats"], [[["a", "bus"]], [["cats"]]], "'a bus' is a text where tokens belong"),
        ([["a", "bus"], ["cats"]], ["a bus", "cats"], "'a bus' is a text where a list of references belongs"),
        ([["a", "bus"], ["cats"]], [[["a", "bus"]], ["cats"]], "'cats' is a text where tokens belong"),
        ("ab", [[["a"]], [["b"]]], "are one text"),
    ],
)
def test_what_cannot_be_scored(metric: Callable[..., Any], mine: list[Tokens], theirs: Any, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        metric(mine, theirs)


@given(pairs)
def test_any_corpus_equals_the_reference(corpus: Pairs) -> None:
    check_equal_to_the_reference(*split(corpus))


@given(written)
def test_any_texts_score_what_the_reference_gives_their_tokens(corpus: list[tuple[str, list[str]]]) -> None:
    check_equal_to_the_reference(tokenize(mine for mine, _ in corpus), [tokenize(theirs) for _, theirs in corpus])


@pytest.mark.parametrize("words", [64, 65, 200])
def test_captions_longer_than_a_machine_word(words: int) -> None:
    chance = np.random.default_rng(words)
    mine = [[str(word) for word in chance.integers(9, size=size)] for size in (words, 3, words)]
    theirs = [[[str(word) for word in chance.integers(9, size=size)] for size in (words + 7, 5)] for _ in mine]
    check_equal_to_the_reference(mine, theirs)


@pytest.mark.skipif(shutil.which("java") is None, reason="the reference tokenizer needs Java")
def test_two_thousand_pictures_equal_the_reference_live() -> None:
    from tests.golden.make_metrics_golden import corpus, scored

    candidates, references = corpus(random.Random(2_000), 2_000)
    found, golden = coco_scores(candidates, references), scored(candidates, references)
    for mine, theirs in (
        (found.bleu.corpus, golden["bleu"]),
        (found.bleu.items, golden["bleu_items"]),
        (found.rouge_l.corpus, golden["rouge_l"]),
        (found.rouge_l.items, golden["rouge_l_items"]),
        (found.cider.corpus, golden["cider"]),
        (found.cider.items, golden["cider_items"]),
    ):
        assert_equal(mine, theirs)


def check_equal_to_the_reference(mine: list[list[str]], theirs: list[list[list[str]]]) -> None:
    """Of the corpus and of every caption."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    results = {number: [" ".join(text)] for number, text in enumerate(mine)}
    truths = {number: [" ".join(text) for text in texts] for number, texts in enumerate(theirs)}
    whole, items = Bleu(4).compute_score(truths, results, verbose=0)
    assert_equal(bleu(mine, theirs).corpus, whole)
    assert_equal(bleu(mine, theirs).items.T, items)
    whole, items = Rouge().compute_score(truths, results)
    assert_equal(rouge_l(mine, theirs).corpus, whole)
    assert_equal(rouge_l(mine, theirs).items, items)
    if any(text for texts in theirs for text in texts):  # the reference's CIDEr fails when no reference has a word
        whole, items = Cider().compute_score(truths, results)
        assert_equal(cider(mine, theirs).corpus, whole)
        assert_equal(cider(mine, theirs).items, items)


def assert_equal(ours: Any, reference: Any) -> None:
    """Within 1e-9 whatever the size: NumPy's own default would allow 1e-6 more at a CIDEr of 10."""
    np.testing.assert_allclose(ours, np.asarray(reference), rtol=0, atol=1e-9)
