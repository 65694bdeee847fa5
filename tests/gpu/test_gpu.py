"""On an NVIDIA GPU: the same numbers as on the CPU, and training that learns. Needs torch and transformers only."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import BlipForConditionalGeneration

from tests.tiny import picture_bytes, tiny_bundle
from tests.unit.vlm_serving.test_search import BOS, EOS, assert_equal, states_of, talkative, theirs
from vlm_assets.training import trainer
from vlm_assets.training.batches import Example
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.trainer import train
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.decoder import Decoder
from vlm_serving.generation import GenerationOptions
from vlm_serving.images import decode_picture
from vlm_serving.model import load_model
from vlm_serving.search import Start, search

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("gpu") / "bundle")


def test_fused_attention_equals_stock(bundle: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randn(4, 3, 32, 32, generator=generator).cuda()
    ids = torch.randint(6, 60, (4, 9), generator=generator).cuda()
    logits = [
        model.cuda().eval()(pixel_values=pixels, input_ids=ids).logits
        for model in (load_model(bundle), BlipForConditionalGeneration.from_pretrained(bundle))
    ]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-4)


def draw(random: Random) -> tuple[GenerationOptions, int, list[int]]:
    """Options, number of pictures and prompt."""
    beams = random.randint(1, 5)
    options = GenerationOptions(
        max_new_tokens=random.randint(1, 40), num_beams=beams, min_new_tokens=random.randint(0, 3),
        length_penalty=random.choice([0.0, 0.5, 1.0, 2.0]), no_repeat_ngram_size=random.choice([0, 2, 3]),
        repetition_penalty=random.choice([1.0, 1.5]), num_captions=random.randint(1, beams),
    )  # fmt: skip
    return options, random.choice([1, 2, 3, 5, 8, 13, 32]), random.choices(range(3, 300), k=random.randint(0, 4))


def test_tokens_equal_generate_on_the_gpu_too_whatever_came_before() -> None:
    """Graphs and their memory are shared by all searches of a decoder: of other sizes, in any order."""
    model, random = talkative(4.0).cuda(), Random(0)
    decoder = Decoder(model)
    for seed in range(60):
        options, count, prompt = draw(random)
        states, start = states_of(count, seed).cuda(), [BOS, *prompt]
        found = search(decoder, states, Start(tuple(start), EOS), options)
        assert_equal(found, theirs(model, states, start, options), (seed, options, count, prompt))


def test_the_gpu_captions_as_the_cpu_does_and_golden_vectors_hold_in_both_precisions(bundle: Path) -> None:
    opened = open_bundle(bundle)
    pictures = [decode_picture(picture_bytes(number)) for number in range(6)]
    texts = [
        [caption.text for caption in Captioner(opened, device=device, precision="fp32").caption(pictures)]
        for device in ("cpu", "cuda")
    ]
    assert texts[0] == texts[1]
    for precision in ("fp32", "bf16"):
        assert Captioner(opened, device="cuda", precision=precision).check_golden() == 3


@pytest.mark.parametrize(
    "way",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"gradient_checkpointing": True},
        {"accumulation_steps": 2},
        {"compile": True},
    ],
    ids=str,
)
def test_training_learns_by_heart(way: dict[str, Any], bundle: Path, tmp_path: Path) -> None:
    captioner = Captioner(open_bundle(bundle), device="cpu")
    contract = captioner.bundle.contract
    words = ["a red square", "a blue circle", "a green dress", "a woman scientist"]
    pairs = [
        Example(
            picture_bytes(number, (32, 32)),
            (contract.bos_token_id, *captioner.tokenizer.encode(text, add_special_tokens=False), contract.eos_token_id),
        )
        for number, text in enumerate(words)
    ]
    model = load_model(bundle)
    batch = 4 // way.get("accumulation_steps", 1)
    common: dict[str, Any] = {"steps": 200, "batch_size": batch, "learning_rate": 5e-3, "label_smoothing": 0.0}
    settings = TrainSettings(**common, **way, validation_pictures=0)
    result = train(model, pairs, [], contract, settings, tmp_path, print)
    assert result.device == "cuda"
    assert result.train_loss[-1][1] < 0.3 < result.train_loss[0][1]


def test_loader_processes_change_no_step(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Augmented pictures over several epochs: the losses are those of a training that loads its own pictures."""
    opened = open_bundle(bundle)
    ends = opened.contract.bos_token_id, opened.contract.eos_token_id
    pairs = [Example(picture_bytes(number, (32, 32)), (ends[0], 7, 8 + number, ends[1])) for number in range(8)]
    settings = TrainSettings(steps=12, batch_size=2, shift_px=2, jitter_share=0.2, precision="fp32",
                             validation_pictures=0)  # fmt: skip
    losses: list[Any] = []
    for loaders in (3, 0):
        monkeypatch.setattr(trainer, "loader_count", lambda *_, loaders=loaders: loaders)
        scratch = tmp_path / str(loaders)
        losses.append(train(load_model(bundle), pairs, [], opened.contract, settings, scratch, print).train_loss)
    assert losses[0] == losses[1]


def test_training_is_faster_and_smaller_than_stock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the figures for docs/benchmarks.md; asserts only that both ran and that ours is not behind."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_train", "--batch", "32", "--steps", "20"]
    subprocess.run([*command, "--json", str(tmp_path / "figures.json")], check=True, timeout=900)
    ratios = json.loads((tmp_path / "figures.json").read_text())["ratios"]
    with capsys.disabled():
        print(ratios)
    assert ratios["pictures_per_s"] > 1
    assert ratios["peak_bytes"] < 1
