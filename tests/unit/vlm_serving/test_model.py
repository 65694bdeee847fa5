"""Fused attention gives what stock transformers gives, and what is saved loads there."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoTokenizer, BlipConfig, BlipForConditionalGeneration

from tests.serving import make_service
from tests.tiny import picture_bytes, read_golden, tiny_bundle
from tests.unit.vlm_assets.training.test_trainer import CAPTIONS
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner, tidy
from vlm_serving.generation import GenerationOptions
from vlm_serving.model import (
    FusedTextAttention,
    FusedVisionAttention,
    build_mini,
    load_model,
    use_fused_attention,
    use_stock_attention,
)
from vlm_serving.preprocessing import decode_for_model

IDS = {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0}


@pytest.fixture(scope="module")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("model") / "random")


@pytest.fixture(params=["random", "trained"])
def bundle(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_bundle")


def batch(padded: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(6, 60, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 5:] = 0
        mask[2, 2:4] = 0  # what comes after a hole would see into it but for the mask; after the end nothing comes
        ids = ids.masked_fill(mask == 0, 0)
    labels = ids.masked_fill(mask == 0, -100)
    pixels = torch.randn(3, 3, 32, 32, generator=generator)
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask, "labels": labels}


def assert_equal_within(ours: torch.Tensor, stock: torch.Tensor, relative: float, floor: float, name: str) -> None:
    """No entry differs by more than `relative` times the largest entry, or times `floor` if that is larger."""
    scale = max(stock.detach().abs().max().item(), floor)
    assert (ours - stock).detach().abs().max().item() <= relative * scale, name


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_logits_and_gradients_equal_stock_transformers(bundle: Path, padded: bool, training: bool) -> None:
    assert_logits_and_gradients_equal(
        load_model(bundle), BlipForConditionalGeneration.from_pretrained(bundle), batch(padded), training
    )


def test_they_do_in_the_shapes_of_blip_base() -> None:
    """Width 768, 12 heads, 577 patches; two layers of each kind, that it takes seconds."""
    config = BlipConfig(vision_config={"num_hidden_layers": 2, "image_size": 384, "initializer_range": 0.02},
                        text_config={"num_hidden_layers": 2})  # fmt: skip
    torch.manual_seed(0)
    stock = BlipForConditionalGeneration(config)
    ours = use_fused_attention(copy.deepcopy(stock))
    inputs = batch(padded=True) | {"pixel_values": torch.randn(3, 3, 384, 384)}
    assert_logits_and_gradients_equal(ours, stock, inputs, training=False)


def assert_logits_and_gradients_equal(ours: Any, stock: Any, inputs: dict[str, torch.Tensor], training: bool) -> None:
    assert not any(isinstance(module, torch.nn.Dropout) and module.p for module in stock.modules())
    outputs = [model.train(training)(**inputs) for model in (ours, stock)]
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss, rtol=1e-4, atol=0)
    real = inputs["attention_mask"].bool()
    assert_equal_within(outputs[0].logits[real], outputs[1].logits[real], 1e-4, 0, "logits")
    for output in outputs:
        output.loss.backward()
    gradients = {name: parameter.grad for name, parameter in stock.named_parameters() if parameter.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    found = {name: parameter.grad for name, parameter in ours.named_parameters() if parameter.grad is not None}
    assert found.keys() == gradients.keys()
    for name, gradient in found.items():
        # softmax does not change with the keys' bias: its gradient is 0 but for rounding, which is no yardstick
        floor = largest if name.endswith("key.bias") else 0
        assert_equal_within(gradient, gradients[name], 1e-4, floor, name)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_generated_tokens_equal_stock_transformers(bundle: Path, num_beams: int) -> None:
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = [
        model.eval().generate(pixel_values=pixels, max_new_tokens=12, num_beams=num_beams)
        for model in (load_model(bundle), BlipForConditionalGeneration.from_pretrained(bundle))
    ]
    assert tokens[0].tolist() == tokens[1].tolist()


def test_a_fine_tuned_bundle_is_plain_transformers_own(trained_bundle: Path) -> None:
    """For somebody without this project: no key missing, none unexpected, and the same captions of the same files."""
    model, report = BlipForConditionalGeneration.from_pretrained(trained_bundle, output_loading_info=True)
    assert {name: list(report[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")} == {
        "missing_keys": [], "unexpected_keys": [], "mismatched_keys": [],
    }  # fmt: skip
    processor, tokenizer = (
        AutoImageProcessor.from_pretrained(trained_bundle),
        AutoTokenizer.from_pretrained(trained_bundle),
    )
    learnt = [Image.open(io.BytesIO(picture_bytes(number, (32, 32)))) for number in range(len(CAPTIONS))]
    others = [Image.open(io.BytesIO(picture_bytes(number, (57, 41)))) for number in range(20, 28)]
    inputs = processor(images=learnt + others, return_tensors="pt")
    tokens = model.eval().generate(**inputs, max_new_tokens=16)
    theirs = [tidy(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]
    captioner = Captioner(open_bundle(trained_bundle), device="cpu", threads=1)
    ours = [caption.text for caption in captioner.caption(learnt + others, GenerationOptions(max_new_tokens=16))]
    assert theirs == ours
    assert theirs[: len(CAPTIONS)] == CAPTIONS


def test_golden_pictures_get_the_tokens_that_stock_preprocessing_gives(trained_bundle: Path) -> None:
    """In fp32, the large JPEG included, which ours decodes at a reduced size."""
    stock = BlipForConditionalGeneration.from_pretrained(trained_bundle).eval()
    processor = AutoImageProcessor.from_pretrained(trained_bundle)
    captioner = Captioner(open_bundle(trained_bundle), device="cpu", precision="fp32", threads=1)
    files = [trained_bundle / str(entry["picture"]) for entry in read_golden(trained_bundle)]
    assert {file.suffix for file in files} == {".png", ".jpg"}
    for file in files:
        upright = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        theirs = stock.generate(**processor(images=upright, return_tensors="pt"), max_new_tokens=16)[0].tolist()
        pixels = decode_for_model(file.read_bytes(), captioner.bundle.contract).pixels
        (ours,) = captioner.caption_pixels(pixels[None], GenerationOptions(max_new_tokens=16))
        assert list(ours.token_ids) == theirs[1 : 1 + ours.token_count], file.name


def test_every_attention_module_is_fused_and_can_be_left_alone(random_bundle: Path) -> None:
    kinds = [type(module).__name__ for module in load_model(random_bundle).modules()]
    assert kinds.count(FusedVisionAttention.__name__) == 1
    assert kinds.count(FusedTextAttention.__name__) == 2  # self- and cross-attention of the one layer
    assert "FusedVisionAttention" not in [
        type(module).__name__ for module in load_model(random_bundle, fused=False).modules()
    ]


def is_fused(model: torch.nn.Module) -> bool:
    return any(isinstance(module, FusedVisionAttention) for module in model.modules())


def test_one_setting_of_captioner_and_of_serving_takes_stock_attention(random_bundle: Path) -> None:
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(picture_bytes(n, (32, 32))))) for n in range(4)])
    pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    fused, stock = (
        Captioner(open_bundle(random_bundle), device="cpu", threads=1, attention=kind) for kind in ("fused", "stock")
    )
    assert (is_fused(fused.vision), is_fused(stock.vision)) == (True, False)
    assert [one.text for one in fused.caption_pixels(pixels)] == [one.text for one in stock.caption_pixels(pixels)]
    assert is_fused(make_service(random_bundle).slot.current().vision)
    assert not is_fused(make_service(random_bundle, attention="stock").slot.current().vision)


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
