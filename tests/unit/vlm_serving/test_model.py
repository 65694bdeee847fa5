"""Fused attention gives what stock transformers gives, and what is saved loads there."""

from pathlib import Path

import pytest
import torch
from transformers import BlipForConditionalGeneration

from tests.tiny import tiny_bundle
from vlm_serving.model import FusedTextAttention, FusedVisionAttention, build_mini, load_model, use_stock_attention

IDS = {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("model") / "bundle")


def batch(padded: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(6, 60, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 5:] = 0
        ids[1, 5:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    pixels = torch.randn(3, 3, 32, 32, generator=generator)
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask, "labels": labels}


@pytest.mark.parametrize("padded", [False, True])
def test_logits_and_gradients_equal_stock_transformers(bundle: Path, padded: bool) -> None:
    ours, stock = load_model(bundle), BlipForConditionalGeneration.from_pretrained(bundle)
    outputs = [model.train()(**batch(padded)) for model in (ours, stock)]
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss, rtol=1e-5, atol=1e-6)
    real = batch(padded)["attention_mask"].bool()
    torch.testing.assert_close(outputs[0].logits[real], outputs[1].logits[real], rtol=1e-4, atol=1e-5)
    for output in outputs:
        output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in stock.named_parameters()}
    for name, parameter in ours.named_parameters():
        if gradients[name] is not None:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generated_tokens_equal_stock_transformers(bundle: Path, num_beams: int) -> None:
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = [
        model.eval().generate(pixel_values=pixels, max_new_tokens=12, num_beams=num_beams)
        for model in (load_model(bundle), BlipForConditionalGeneration.from_pretrained(bundle))
    ]
    assert tokens[0].tolist() == tokens[1].tolist()


def test_every_attention_module_is_fused_and_can_be_left_alone(bundle: Path) -> None:
    kinds = [type(module).__name__ for module in load_model(bundle).modules()]
    assert kinds.count(FusedVisionAttention.__name__) == 1
    assert kinds.count(FusedTextAttention.__name__) == 2  # self- and cross-attention of the one layer
    assert "FusedVisionAttention" not in [type(module).__name__ for module in load_model(bundle, fused=False).modules()]


def test_fused_attention_can_be_taken_back(bundle: Path) -> None:
    model = load_model(bundle)
    fused = model.eval()(**batch(padded=True)).logits
    stock = use_stock_attention(model)(**batch(padded=True)).logits
    assert not any(isinstance(module, FusedVisionAttention | FusedTextAttention) for module in model.modules())
    torch.testing.assert_close(fused, stock, rtol=1e-4, atol=1e-5)


def test_vision_weights_from_nothing_are_not_all_alike() -> None:
    """transformers' default initializer_range of 1e-10 would leave nothing to learn from."""
    model = build_mini(vocab_size=100, width=32, heads=2, vision_layers=1, text_layers=1, **IDS)
    spread = model.vision_model.encoder.layers[0].self_attn.qkv.weight.detach().std()
    assert 0.01 < float(spread) < 0.03


def test_equal_seeds_make_equal_models() -> None:
    models = [
        build_mini(vocab_size=50, width=32, heads=2, vision_layers=1, text_layers=1, seed=seed, **IDS)
        for seed in (1, 1, 2)
    ]
    weights = [model.text_decoder.bert.embeddings.word_embeddings.weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
