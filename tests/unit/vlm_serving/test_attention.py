"""Attention maps are stock transformers' own, one per word, and looking at them changes nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BlipForConditionalGeneration

from tests.tiny import picture_bytes
from vlm_serving.attention import ANSWER_SIDE, heat, word_maps
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import model_pixels
from vlm_serving.words import visible_pieces, word_numbers

A_RED_SQUARE = "a red square"


@pytest.fixture(scope="module")
def captioner(other_bundle: Path) -> Captioner:
    return Captioner(open_bundle(other_bundle), device="cpu", precision="fp32", threads=1)  # 48 px: 3 x 3 patches


@pytest.fixture(scope="module")
def pixels(captioner: Captioner) -> np.ndarray:
    contract = captioner.bundle.contract
    return np.stack([model_pixels(decode_picture(picture_bytes(seed)), contract) for seed in range(3)])


def spoken(captioner: Captioner, text: str) -> list[int]:
    ids = captioner.tokenizer.encode(text, add_special_tokens=False)
    return [*ids, captioner.bundle.contract.eos_token_id]


def test_a_map_is_the_mean_of_the_last_layers_heads_where_the_word_was_predicted(
    captioner: Captioner, pixels: np.ndarray, other_bundle: Path
) -> None:
    said = spoken(captioner, A_RED_SQUARE)
    found = word_maps(captioner, pixels[:1], [said])[0]
    assert found.words == ("a", "red", "square")
    assert found.maps.shape == (3, 3, 3)
    stock = BlipForConditionalGeneration.from_pretrained(other_bundle, attn_implementation="eager").eval()
    ids = torch.tensor([[captioner.bundle.contract.bos_token_id, *said[:-1]]])
    with torch.inference_mode():
        states = stock.vision_model(captioner.normalise(torch.from_numpy(pixels[:1]))).last_hidden_state
        layers = stock.text_decoder(ids, encoder_hidden_states=states, output_attentions=True).cross_attentions
    weights = layers[-1][0].mean(dim=0)  # (L, 10)
    pieces = visible_pieces(captioner.tokenizer, said)
    for number in range(3):
        places = [place for place, owner in enumerate(word_numbers(A_RED_SQUARE, pieces)) if owner == number]
        expected = weights[places, 1:].mean(dim=0).reshape(3, 3).numpy()
        np.testing.assert_allclose(found.maps[number], expected, rtol=1e-4, atol=1e-6)
        assert 0 < found.maps[number].sum() < 1  # the class token has the rest


def test_a_word_hangs_neither_on_later_words_nor_on_other_pictures(captioner: Captioner, pixels: np.ndarray) -> None:
    short, long = spoken(captioner, "a red"), spoken(captioner, "a red circle on white")
    together = word_maps(captioner, pixels, [short, long, short])
    alone = word_maps(captioner, pixels[:1], [short])[0]
    assert [len(found.words) for found in together] == [2, 5, 2]
    np.testing.assert_allclose(together[0].maps, alone.maps, rtol=1e-4, atol=1e-6)
    same_picture = word_maps(captioner, pixels[1:2], [short])[0]
    np.testing.assert_allclose(together[1].maps[:2], same_picture.maps, rtol=1e-4, atol=1e-6)


def test_the_captioner_is_as_before(captioner: Captioner, pixels: np.ndarray) -> None:
    before = captioner.caption_pixels(pixels)
    word_maps(captioner, pixels, [caption.token_ids for caption in before])
    assert [caption.text for caption in captioner.caption_pixels(pixels)] == [caption.text for caption in before]


def test_the_maps_words_are_the_captions_own(captioner: Captioner, pixels: np.ndarray) -> None:
    captions = captioner.caption_pixels(pixels)
    for caption, found in zip(captions, word_maps(captioner, pixels, [c.token_ids for c in captions]), strict=True):
        assert found.words == tuple(word.text for word in caption.words)
        assert found.maps.shape == (len(found.words), 3, 3)


def test_nothing_said_has_no_maps(captioner: Captioner, pixels: np.ndarray) -> None:
    found = word_maps(captioner, pixels[:1], [[captioner.bundle.contract.eos_token_id]])[0]
    assert found.words == () and found.maps.shape == (0, 3, 3)


def test_all_words_of_a_caption_share_one_scale() -> None:
    maps = np.array([[[0.64, 0.16], [0.0, 0.04]], [[0.01, 0.01], [0.01, 0.01]]], dtype=np.float32)
    assert heat(maps).tolist() == [[[255, 128], [0, 64]], [[32, 32], [32, 32]]]


@pytest.mark.parametrize("words", [0, 2])
def test_without_words_or_attention_nothing_is_lit(words: int) -> None:
    found = heat(np.zeros((words, 3, 3), dtype=np.float32))
    assert found.shape == (words, 3, 3) and found.dtype == np.uint8 and not found.any()


def test_a_fine_grid_is_averaged_for_an_answer() -> None:
    maps = np.zeros((2, 24, 24), dtype=np.float32)
    maps[0, 0, 0], maps[1, 22:, 22:] = 0.4, 0.1  # as much in all: one bright patch is four dim ones
    found = heat(maps, ANSWER_SIDE)
    assert found.shape == (2, 12, 12) and found[0, 0, 0] == found[1, 11, 11] == 255 and np.count_nonzero(found) == 2


@pytest.mark.parametrize("num_beams", [1, 3])
def test_an_explained_caption_is_the_same_with_the_heat_of_its_words(
    captioner: Captioner, pixels: np.ndarray, num_beams: int
) -> None:
    options = replace(captioner.options, num_beams=num_beams, max_new_tokens=6)
    plain, told = (captioner.caption_pixels(pixels, options, explain=explain) for explain in (False, True))
    maps = word_maps(captioner, pixels, [caption.token_ids for caption in plain])
    for one, other, looked in zip(plain, told, maps, strict=True):
        assert one.heat is None and (one.token_ids, one.words) == (other.token_ids, other.words)
        assert other.heat is not None and np.array_equal(other.heat, heat(looked.maps))
