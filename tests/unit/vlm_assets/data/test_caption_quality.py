from functools import cache

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from tests.tiny import WORDS
from vlm_assets.data.caption_quality import PLACEHOLDERS, caption_faults, is_file_name, least_tokens
from vlm_assets.data.quality import Fault, QualityLimits
from vlm_assets.training.tokenizer import wordpiece_vocabulary

LIMITS = QualityLimits()
PIECES = {piece: number for number, piece in enumerate(wordpiece_vocabulary(WORDS, 200))}


def reasons(caption: str, file_name: str = "") -> list[str]:
    return [fault.reason for fault in caption_faults(caption, file_name)]


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("", Fault("caption_too_short", "0 characters < 2")),
        (" x ", Fault("caption_too_short", "1 characters < 2")),
        ("y" * 501, Fault("caption_too_long", "501 characters > 500")),
        ("IMG_0042.jpg", Fault("caption_is_file_name", "the file is called IMG_0042.jpg")),
        ("a cafÃ© chair", Fault("mojibake", "was perhaps meant to be 'a café chair'")),
        ("a caf\ufffd chair", Fault("mojibake", "'a caf\ufffd chair' has lost characters (U+FFFD)")),
        ("a <b>red</b> coat", Fault("has_html", "'<b>'")),
        ("coat &amp; hat", Fault("has_html", "'&amp;'")),
        ("red coat, see https://shop.example/42?x=1 now", Fault("has_url", "'https://shop.example/42?x=1'")),
        ("red coat from best-coats.com", Fault("has_url", "'best-coats.com'")),
        ("red coat, zalando.de", Fault("has_url", "'zalando.de'")),
        ("ZALANDO.DE red coat", Fault("has_url", "'ZALANDO.DE'")),
        ("red coat, shop.it/coats/4", Fault("has_url", "'shop.it/coats/4'")),
        ("red coat, ask ann.b@coats.example", Fault("has_email", "'ann.b@coats.example'")),
        ("red coat, call +49 30 1234567", Fault("has_phone", "'+49 30 1234567'")),
        ("red coat (555) 123-4567", Fault("has_phone", "'(555) 123-4567'")),
        ("red coat 0171 1234567", Fault("has_phone", "'0171 1234567'")),
        ("red coat, tel 030/1234567", Fault("has_phone", "'tel 030/1234567'")),
        ("red coat, (030) 12345678", Fault("has_phone", "'(030) 12345678'")),
        ("red coat 020 7946 0958", Fault("has_phone", "'020 7946 0958'")),
        ("red coat, call 01 23 45 67 89", Fault("has_phone", "'call 01 23 45 67 89'")),
        ("nan", Fault("caption_says_nothing", "'nan'")),
        ("None", Fault("caption_says_nothing", "'None'")),
        (" Untitled.", Fault("caption_says_nothing", "' Untitled.'")),
        ("N/A", Fault("caption_says_nothing", "'N/A'")),
        ("???", Fault("caption_says_nothing", "'???' has no letter and no digit")),
        ("...", Fault("caption_says_nothing", "'...' has no letter and no digit")),
        ("red coat AB-12345", Fault("has_sku", "'AB-12345'")),
        ("red coat, item no. 77", Fault("has_sku", "'item no. 77'")),
        ("An image of a red coat", Fault("boilerplate", "'An image of'")),
        ("red coat, photo by Ann", Fault("boilerplate", "'photo by'")),
        ("red\x07coat", Fault("unknown_characters", "12 % of the characters, such as U+0007")),
        ("red " * 40, Fault("caption_truncated", "at least 42 tokens > 40")),
    ],
)
def test_each_fault_is_seen_with_its_value(caption: str, fault: Fault):
    assert caption_faults(caption)[0] == fault


@pytest.mark.parametrize(
    "caption",
    [
        "a man's coat, size 36-38, from the 1950s",
        "jeans 501, 32/34, 98 % cotton & 2 % elastane",
        "naïve café — “très chic” naïveté",
        "Größe 38: schöne Jacke für 25 €",
        "красное платье в горошек",
        "赤いドレスを着た女性",
        "a girl in a #1 jersey <3",
        "a photo album on a table",
        "the USA team in 2012",
        "T-SHIRT, XXL",
        "a dress 👗 with dots",
        "a woman at 10:30 p.m. on 2012-06-13",
        "none of the coats is red",
        "an unknown man, a photo in hand",
        "a red coat.it is long",
        "A red coat.De la marque",
        "a dress at 5.5 in. wide, v1.de-luxe",
        "sizes 08 10 12 14 16, 034 / 36 / 38 and 36-38 40-42",
        "a telephone 1920 1930, a phone 12.06.2012, tel 2012-06-13",
        "EAN 4012345678901 and 0123456789012, model 0123-456789",
        "a coat, art. 0171 1234567",
        "an iphone 12 / 13 / 14 and a call of duty 2",
        "1 000 000 dots, 0.171 1234567",
    ],
)
def test_plain_captions_have_no_fault(caption: str):
    assert caption_faults(caption) == []


@given(
    st.lists(st.text("abcdefghijklmnopqrstuvwxyzäéß", min_size=1, max_size=12), min_size=2, max_size=12).map(" ".join)
)
def test_small_letters_and_spaces_never_look_like_anything_but_words(caption: str):
    assume(caption not in PLACEHOLDERS)  # "n a"
    assert set(reasons(caption)) <= {"caption_truncated"}


@pytest.mark.parametrize(
    ("caption", "file_name", "expected"),
    [
        ("IMG_0042", "IMG_0042.jpg", True),
        ("img_0042", "folder/IMG_0042.JPG", True),
        ("red_coat.jpg", "", True),
        ("photos/red_coat.webp", "7.jpg", True),
        ("coat", "coat.jpg", False),
        ("red coat", "red_coat.jpg", False),
        ("a coat", "", False),
        ("a coat named v1.jpg", "v1.jpg", False),
        ("IMG_0042", "3fa9c1.jpg", True),  # the file was renamed since
        ("DSC01234", "", True),
        ("PXL_20230415_123456789", "", True),
        ("IMG-20230415-WA0001", "", True),
        ("20230415_123456", "", True),
        ("photo-1520975916090-3105956dac38", "", True),
        ("d41d8cd98f00b204e9800998ecf8427e", "", True),
        ("photo 1950", "", False),
        ("facade", "", False),
        ("1234567890123456", "", False),
    ],
)
def test_file_names_in_place_of_captions(caption: str, file_name: str, expected: bool):
    assert is_file_name(caption, file_name) is expected


def test_the_name_that_the_source_gave_counts_too():
    """The picture is called by its first row; its caption may be the file's name in another."""
    for row in ("metadata.jsonl:2 red coat_1.jpg", "0.tar shop/red coat_1"):
        assert is_file_name("red coat_1", "ab12.jpg", ["metadata.jsonl:1 ab12.jpg", row])
    assert not is_file_name("red coat_1", "ab12.jpg", ["metadata.jsonl:2 dark red coat_12.jpg"])
    assert not is_file_name("coat", "ab12.jpg", ["metadata.jsonl:2 coat.jpg"])
    assert caption_faults("shirt 7", "a.jpg", source_rows=["0.tar shirt 7"])[0].reason == "caption_is_file_name"


@cache
def bert() -> BertWordPieceTokenizer:
    return BertWordPieceTokenizer(vocab=PIECES)


@given(st.text(min_size=1, max_size=200))
@example("[PAD]")
@example("a[MASK]b [CLS][SEP]")
def test_berts_tokenizer_never_needs_fewer_tokens_than_the_bound(caption: str):
    assert least_tokens(caption) <= len(bert().encode(caption).ids)


def test_what_drops_comes_first():
    found = caption_faults("image of a coat AB-12345, www.coats.example")
    assert [fault.reason for fault in found] == ["has_url", "has_sku", "boilerplate"]
    assert [fault.drops(LIMITS) for fault in found] == [True, False, False]
    assert [fault.drops(QualityLimits(drop_flagged=("has_sku",))) for fault in found] == [True, True, False]
    strict = caption_faults("image of a coat AB-12345", limits=QualityLimits(drop_flagged=("boilerplate",)))
    assert [fault.reason for fault in strict] == ["boilerplate", "has_sku"]
