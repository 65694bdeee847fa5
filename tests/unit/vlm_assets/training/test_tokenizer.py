"""The vocabulary of models that start from nothing."""

import random

import pytest

from vlm_assets.training.tokenizer import SPECIAL_TOKENS, emoji_names, train_wordpiece, wordpiece_vocabulary

CAPTIONS = [
    "a woman scientist with medium-dark skin tone",
    "a man's hat, red",
    "two firefighters",
    "a woman firefighter",
]


def test_equal_captions_make_an_equal_vocabulary_in_any_order() -> None:
    shuffled = random.Random(1).sample(CAPTIONS, len(CAPTIONS))
    assert wordpiece_vocabulary(CAPTIONS, 300) == wordpiece_vocabulary(shuffled, 300)


def test_the_vocabulary_keeps_its_size_and_has_no_doubles() -> None:
    vocabulary = wordpiece_vocabulary(emoji_names(), 4000)
    assert len(vocabulary) == len(set(vocabulary)) <= 4000
    assert vocabulary[: len(SPECIAL_TOKENS)] == list(SPECIAL_TOKENS)


@pytest.mark.parametrize("caption", [*CAPTIONS, "a spaceman's zebra, 42 % off!"])
def test_captions_come_back_and_nothing_is_unknown(caption: str) -> None:
    tokenizer = train_wordpiece(CAPTIONS, 400)
    ids = tokenizer.encode(caption, add_special_tokens=False)
    assert tokenizer.unk_token_id not in ids
    assert "".join(tokenizer.decode(ids).split()) == "".join(caption.split())


def test_a_known_word_is_one_piece_and_case_does_not_matter() -> None:
    tokenizer = train_wordpiece(CAPTIONS, 400)
    assert tokenizer.tokenize("Scientist") == ["scientist"]
    assert len(tokenizer.tokenize("firefighting")) > 1


def test_hyphenated_words_are_one_piece_and_come_back_whole() -> None:
    tokenizer = train_wordpiece(CAPTIONS, 400)
    assert tokenizer.tokenize("medium-dark skin") == ["medium-dark", "skin"]
    ids = tokenizer.encode("a light-medium man's hat", add_special_tokens=False)
    assert tokenizer.decode(ids) == "a light-medium man's hat"


def test_special_tokens_are_where_blip_expects_them() -> None:
    tokenizer = train_wordpiece(CAPTIONS)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("[DEC]", "[SEP]", "[PAD]")
    assert tokenizer.decode([tokenizer.bos_token_id, tokenizer.eos_token_id], skip_special_tokens=True) == ""
