"""Captions are token for token those of transformers' `generate`, and no picture's hangs on the others of its batch."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BlipConfig, BlipForConditionalGeneration

from vlm_serving.decoder import Decoder
from vlm_serving.generation import GenerationOptions
from vlm_serving.model import build_mini, load_model
from vlm_serving.packed import PackedLinear, PlainLinear, can_pack
from vlm_serving.search import Spoken, Start, search

BOS, EOS, PAD = 1, 2, 0
PLACES, WIDTH, WORDS = 10, 64, 300
ROUNDING = 2e-7  # two units in the last place of a float32


def talkative(eos_bias: float) -> BlipForConditionalGeneration:
    """Random weights, large enough that captions differ, ending sooner or later as `eos_bias` has it."""
    model = build_mini(
        vocab_size=WORDS, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, image_size_px=48, width=WIDTH, heads=4,
        vision_layers=1, text_layers=2, seed=3,
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.text_decoder.parameters():
            if weight.dim() > 1:
                weight.mul_(3)
        model.text_decoder.cls.predictions.bias[EOS] += eos_bias
    return model.eval()


MODELS = {bias: talkative(bias) for bias in (0.0, 4.0)}
DECODERS = {bias: Decoder(model) for bias, model in MODELS.items()}

options_strategy = st.builds(
    GenerationOptions,
    max_new_tokens=st.integers(1, 20),
    num_beams=st.integers(1, 5),
    min_new_tokens=st.integers(0, 3),
    length_penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    no_repeat_ngram_size=st.sampled_from([0, 2, 3]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.5]),
)


def states_of(count: int, seed: int) -> torch.Tensor:
    return 2 * torch.randn(count, PLACES, WIDTH, generator=torch.Generator().manual_seed(seed))


def theirs(
    model: Any, states: torch.Tensor, prompt: list[int], options: GenerationOptions
) -> list[list[tuple[list[int], float]]]:
    """For each picture its captions with their scores (nan if greedy), best first, up to their EOS."""
    count, captions = states.shape[0], options.num_captions
    beams: dict[str, Any] = {"length_penalty": options.length_penalty} if options.num_beams > 1 else {}
    with torch.inference_mode():
        said = model.text_decoder.generate(
            input_ids=torch.tensor([prompt] * count, device=states.device), encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=states.device),
            eos_token_id=EOS, pad_token_id=PAD, return_dict_in_generate=True, output_scores=True,
            max_new_tokens=options.max_new_tokens, min_new_tokens=options.min_new_tokens or None,
            num_beams=options.num_beams, num_return_sequences=captions, do_sample=False,
            no_repeat_ngram_size=options.no_repeat_ngram_size, repetition_penalty=options.repetition_penalty, **beams,
        )  # fmt: skip
    rows = [up_to_end(row) for row in said.sequences[:, len(prompt) :].tolist()]
    scores = said.sequences_scores.tolist() if options.num_beams > 1 else [math.nan] * len(rows)
    both = list(zip(rows, scores, strict=True))
    return [both[start : start + captions] for start in range(0, len(both), captions)]


def assert_equal(found: list[list[Spoken]], expected: list[list[tuple[list[int], float]]], about: object = "") -> None:
    """Token for token; but where float32 cannot tell two captions' scores apart, either may come first."""
    assert len(found) == len(expected)
    for ours, other in zip(found, expected, strict=True):
        for one, (ids, score) in zip(ours, other, strict=True):
            tied = abs(one.score - score) <= ROUNDING * abs(score)
            assert list(one.token_ids) == ids or tied, (about, one, ids, score)


def up_to_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids


@settings(max_examples=60, deadline=None)
@given(
    options=options_strategy, count=st.integers(1, 32), seed=st.integers(0, 10_000), bias=st.sampled_from([0.0, 4.0]),
    prompt=st.lists(st.integers(3, WORDS - 1), max_size=4), data=st.data(),
)  # fmt: skip
def test_tokens_equal_generate(
    options: GenerationOptions, count: int, seed: int, bias: float, prompt: list[int], data: st.DataObject
) -> None:
    captions = data.draw(st.integers(1, options.num_beams))
    options = GenerationOptions(**{**options.to_json(), "num_captions": captions})
    states, start = states_of(count, seed), [BOS, *prompt]
    found = search(DECODERS[bias], states, Start(tuple(start), EOS), options)
    assert_equal(found, theirs(MODELS[bias], states, start, options))


@settings(max_examples=30, deadline=None)
@given(options=options_strategy, count=st.integers(2, 12), seed=st.integers(0, 10_000))
def test_a_caption_hangs_on_no_other_picture(options: GenerationOptions, count: int, seed: int) -> None:
    states, start = states_of(count, seed), Start((BOS,), EOS)
    together = search(DECODERS[4.0], states, start, options)
    alone = [search(DECODERS[4.0], states[n : n + 1], start, options)[0] for n in range(count)]
    assert_equal(together, [[(list(one.token_ids), one.score) for one in captions] for captions in alone])


@pytest.mark.parametrize("beams", [1, 3])
def test_logprobs_are_the_models_own(beams: int) -> None:
    """Read off a forward pass over the whole caption, with stock transformers."""
    options = GenerationOptions(max_new_tokens=12, num_beams=beams, no_repeat_ngram_size=2, num_captions=beams)
    states = states_of(3, seed=5)
    found = search(DECODERS[4.0], states, Start((BOS, 7), EOS), options)
    for picture, captions in zip(states, found, strict=True):
        for one in captions:
            ids = torch.tensor([[BOS, 7, *one.token_ids]])
            with torch.inference_mode():
                logits = MODELS[4.0].text_decoder(ids, encoder_hidden_states=picture[None], is_decoder=True).logits
            said = logits[0, 1:-1].log_softmax(-1)[range(len(one.token_ids)), one.token_ids]
            torch.testing.assert_close(torch.tensor(one.logprobs), said, rtol=1e-4, atol=1e-4)
            assert one.finish_reason == ("stop" if one.token_ids[-1] == EOS else "length")
            assert one.score == pytest.approx(sum(one.logprobs) / len(one.token_ids) ** (beams > 1), abs=1e-4)


def test_several_captions_are_told_best_first() -> None:
    options = GenerationOptions(max_new_tokens=12, num_beams=4, num_captions=3)
    for captions in search(DECODERS[4.0], states_of(4, seed=8), Start((BOS,), EOS), options):
        assert len({one.token_ids for one in captions}) == 3
        assert [one.score for one in captions] == sorted((one.score for one in captions), reverse=True)


@pytest.mark.parametrize("beams", [1, 3])
def test_tokens_equal_generate_at_the_size_of_blip_base(beams: int) -> None:
    config = BlipConfig()
    config.vision_config.initializer_range = 0.02
    torch.manual_seed(beams)
    model = BlipForConditionalGeneration(config).eval()
    states = torch.randn(3, 577, 768)
    options = GenerationOptions(max_new_tokens=12, num_beams=beams)
    found = search(Decoder(model), states, Start((30522, 1037, 3861), 102), options)
    with torch.inference_mode():
        tokens = model.text_decoder.generate(
            input_ids=torch.tensor([[30522, 1037, 3861]] * 3), encoder_hidden_states=states,
            encoder_attention_mask=torch.ones(3, 577, dtype=torch.long), eos_token_id=102, pad_token_id=0,
            max_new_tokens=12, num_beams=beams, do_sample=False,
        )  # fmt: skip
    assert [list(one[0].token_ids) for one in found] == [
        row[: row.index(102) + 1] if 102 in row else row for row in tokens[:, 3:].tolist()
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("then_gelu", [False, True])
def test_a_packed_layer_is_the_plain_one(dtype: torch.dtype, then_gelu: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(33, 20, generator=generator).to(dtype), torch.randn(33, generator=generator).to(dtype)
    if not can_pack(weight):
        pytest.skip(f"this torch packs no {dtype} on this machine")
    x = torch.randn(2, 5, 20, generator=generator).to(dtype)
    with torch.inference_mode():
        packed, plain = (kind(weight, bias, then_gelu)(x) for kind in (PackedLinear, PlainLinear))
    within = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-2}
    torch.testing.assert_close(packed, plain, **within)


def test_a_trained_model_says_the_same_by_generate(trained_bundle: Path) -> None:
    model = load_model(trained_bundle).eval()
    pixels = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    config: Any = model.config.text_config
    with torch.inference_mode():
        states = model.vision_model(pixel_values=pixels).last_hidden_state
        tokens = model.generate(pixel_values=pixels, max_new_tokens=16).tolist()
    start = Start((config.bos_token_id,), config.sep_token_id)
    found = search(Decoder(model), states, start, GenerationOptions(max_new_tokens=16))
    ends = [row.index(config.sep_token_id) + 1 if config.sep_token_id in row else len(row) for row in tokens]
    assert [list(one[0].token_ids) for one in found] == [row[1:end] for row, end in zip(tokens, ends, strict=True)]
