"""Word pieces put together: the words are the caption's, and each is as sure as its pieces in a row."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BlipForConditionalGeneration

from tests.tiny import picture_bytes
from vlm_assets.training.tokenizer import train_wordpiece
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner, tidy
from vlm_serving.generation import GenerationOptions
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import model_pixels
from vlm_serving.words import caption_words, visible_pieces, word_numbers

TOKENIZER = train_wordpiece(["a man's red t-shirt, worn", "a woman scientist. don't look!"], vocab_size=220)


def test_pieces_of_a_word_multiply_and_split_words_come_together() -> None:
    pieces = ["a", "t", "-", "shi", "rt", "", "."]
    words = caption_words("a t-shirt.", pieces, [math.log(p) for p in (0.5, 0.9, 0.8, 0.5, 0.5, 0.1, 0.4)])
    assert [word.text for word in words] == ["a", "t-shirt."]
    assert [word.probability for word in words] == pytest.approx([0.5, 0.9 * 0.8 * 0.5 * 0.5 * 0.4])


def test_nothing_said_has_no_words() -> None:
    assert caption_words("", ["", ""], [-1.0, -2.0]) == ()


@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=24))
def test_any_tokens_give_the_words_of_the_decoded_text(token_ids: list[int]) -> None:
    text = tidy(TOKENIZER.decode(token_ids, skip_special_tokens=True))
    pieces = visible_pieces(TOKENIZER, token_ids)
    assert "".join(pieces) == "".join(text.split())
    numbers = [number for number in word_numbers(text, pieces) if number is not None]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(text.split())))


@given(st.lists(st.sampled_from(["a", "t-shirt", "man's", "don't", "red,", "(blue)", "3.5", "l'été", "o'clock."])))
def test_berts_own_splitting_is_undone_too(words: list[str]) -> None:
    """BERT takes words apart at every punctuation mark, and transformers' clean-up moves only spaces."""
    caption = " ".join(words)
    pieces = [piece for piece, _ in TOKENIZER.backend_tokenizer.pre_tokenizer.pre_tokenize_str(caption)]
    cleaned = tidy(TOKENIZER.clean_up_tokenization(" ".join(pieces)))
    found = word_numbers(cleaned, pieces)
    assert len(found) == len(pieces) and None not in found
    assert len(set(found)) == len(cleaned.split())


@pytest.mark.parametrize("num_beams", [1, 3])
def test_probabilities_are_those_of_plain_transformers(bundle: Path, num_beams: int) -> None:
    captioner = Captioner(open_bundle(bundle), device="cpu", precision="fp32", threads=1)
    contract = captioner.bundle.contract
    pixels = np.stack([model_pixels(decode_picture(picture_bytes(seed)), contract) for seed in range(4)])
    stock = BlipForConditionalGeneration.from_pretrained(bundle).eval()
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    for row, caption in enumerate(captioner.caption_pixels(pixels, GenerationOptions(12, num_beams))):
        assert " ".join(word.text for word in caption.words) == caption.text
        assert len(caption.token_ids) == caption.token_count
        ids = torch.tensor([[contract.bos_token_id, *caption.token_ids]])
        with torch.inference_mode():
            logits = stock(pixel_values=captioner.normalise(torch.from_numpy(pixels[row : row + 1])), input_ids=ids)
        logprobs = logits.logits[0].log_softmax(-1)
        each = [float(logprobs[place, token]) for place, token in enumerate(caption.token_ids)]
        pieces = visible_pieces(tokenizer, caption.token_ids)
        expected = caption_words(caption.text, pieces, each)
        assert [word.probability for word in caption.words] == pytest.approx(
            [word.probability for word in expected], rel=1e-3
        )
        assert caption.confidence == pytest.approx(math.exp(sum(each) / len(each)), rel=1e-3)


def test_a_start_token_unknown_to_the_tokenizer_shows_nothing() -> None:
    """BLIP starts captions at an id beyond its tokenizer's words."""
    assert visible_pieces(TOKENIZER, [len(TOKENIZER) + 1, TOKENIZER.convert_tokens_to_ids("a")]) == ["", "a"]
