"""Tokens equal to the reference's on twenty thousand sentences, and the quirks that matter one by one."""

import json
import random
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vlm_assets.evaluation.golden_metrics import TOKENS
from vlm_assets.evaluation import tokenizer
from vlm_assets.evaluation.tokenizer import DROPPED, tokenize

QUIRKS = {
    "A man's dog isn't here.": "a man 's dog is n't here",
    "they can't; we cannot, I'm gonna": "they ca n't we can not i 'm gon na",
    "(small) dog [UNK]": "-lrb- small -rrb- dog -lsb- unk -rsb-",
    "“smart” ‘quotes’ it’s": "smart quotes it 's",
    "made in the U.S. by Dr. Who, etc.": "made in the u.s. by dr. who etc.",
    "a dog.": "a dog",
    "wow! what?! no!!": "wow what ?! no !!",
    "$5.99 or 50% off": "$ 5.99 or 50 % off",
    "2 1/2 cups, ½ full": "2\xa01/2 cups 1/2 full",
    "a black-and-white t-shirt - new": "a black-and-white t-shirt new",
    "rock'n'roll of the '90s": "rock 'n' roll of the '90s",
    "a smile 😀 and a ♥": "a smile and a ♥",
    "AT&T &amp; R&B": "at&t & r&b",
    "a <b> c": "a <b> c",
    "woman: light skin tone": "woman light skin tone",
    "naïve café": "naïve café",
    "he's中 and isn'tﬁ": "he 's 中 and is n'tﬁ",
}


def test_every_golden_sentence_has_the_reference_tokens() -> None:
    different = [
        text for text, tokens in zip(TOKENS, tokenize(TOKENS), strict=True) if " ".join(tokens) != TOKENS[text]
    ]
    assert different == []
    assert len(TOKENS) >= 20_000


@pytest.mark.parametrize(("caption", "tokens"), QUIRKS.items())
def test_quirk(caption: str, tokens: str) -> None:
    assert " ".join(tokenize([caption])[0]) == tokens


@pytest.mark.parametrize("caption", ["", "   ", "...", '"', "\n", "!", "😀"])
def test_nothing_to_count(caption: str) -> None:
    assert tokenize([caption]) == [[]]


def test_a_line_break_is_a_blank() -> None:
    assert tokenize(["a red\nbus\r\nstop\u2028here"]) == [["a", "red", "bus", "stop", "here"]]


@given(st.text())
def test_any_text_gives_printable_lower_case_tokens(caption: str) -> None:
    tokens = tokenize([caption])[0]
    assert all(token and " " not in token and token not in DROPPED for token in tokens)
    assert [token.lower() for token in tokens] == tokens


@given(st.lists(st.sampled_from(["red", "bus", "t-shirt", "sky", "wooden"]), max_size=12))
def test_plain_words_stay_words(words: list[str]) -> None:
    assert tokenize([", ".join(words).title() + "."]) == [words]


@given(st.lists(st.text(max_size=20), max_size=5))
def test_captions_are_read_alone(captions: list[str]) -> None:
    assert tokenize(captions) == [tokenize([caption])[0] for caption in captions]


@given(st.lists(st.sampled_from([*"a <>(.'\"1235/-bB", "no.", "A ", " 1/2", "<a", "'90s"]), max_size=12).map("".join))
def test_reading_between_blanks_is_reading_the_whole(caption: str) -> None:
    assert tokenize([caption])[0] == tokenizer._read(caption.rstrip())


def test_metrics_import_neither_dagster_nor_torch() -> None:
    modules = [
        f"vlm_assets.evaluation.{name}"
        for name in ("cider", "bleu", "rouge", "coco", "scores", "slots", "significance")
    ]
    code = (
        f"import json, sys\nfor name in {modules!r}: __import__(name)\n"
        "heavy = {'dagster', 'torch', 'transformers', 'ray', 'pandas', 'pyarrow', 'scipy', 'mlflow'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_what_the_package_promises_works_without_dagster_and_torch() -> None:
    """`from vlm_assets.evaluation import cider`, in a Python that has neither."""
    code = (
        "import sys\n"
        "for name in ('dagster', 'torch', 'transformers', 'ray', 'pandas', 'pyarrow'): sys.modules[name] = None\n"
        "from vlm_assets.evaluation import bleu, cider, rouge, tokenizer\n"
        "from vlm_assets.evaluation.coco import coco_scores\n"
        "mine, theirs = tokenizer.tokenize(['a red bus', 'two cats']), [[['a', 'red', 'bus']], [['two', 'cats']]]\n"
        "print(round(cider.cider(mine, theirs).corpus, 9), rouge.rouge_l(mine, theirs).corpus)\n"
        "print(round(coco_scores(['a red bus', 'two cats'], [['a bus'], ['two dogs']]).bleu.corpus[0], 9))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["6.25", "1.0", "0.6"]


@pytest.mark.skipif(shutil.which("java") is None, reason="the reference tokenizer needs Java")
@pytest.mark.parametrize("seed", [20_000, 20_001])
def test_fresh_captions_equal_the_reference_live(seed: int) -> None:
    from tests.golden.make_metrics_golden import tokenized, varied

    chance = random.Random(seed)
    captions = [varied(chance) for _ in range(20_000)]
    assert [" ".join(tokens) for tokens in tokenize(captions)] == tokenized(captions)
