"""A loss, gradient or weight that is not a number ends the training in its step, and no checkpoint holds it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, TrainerCallback

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.training.test_trainer import FAST, examples
from vlm_assets.errors import TrainingError
from vlm_assets.training.base import write_base
from vlm_assets.training.checkpoints import newest_checkpoint
from vlm_assets.training.config import LocalModel
from vlm_assets.training.trainer import train
from vlm_serving.bundle import Bundle, open_bundle
from vlm_serving.model import load_model

SETTINGS = replace(FAST, steps=40, checkpoint_every_steps=5)
HELP = "that is another training, from step 0. Run again as it is, this one comes to the same step again."


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle"))


class Breaks(TrainerCallback):
    """Makes every gradient not a number in one step: before the norm is taken, or behind its back."""

    def __init__(self, step: int, value: float = float("nan"), unseen: bool = False) -> None:
        self.step, self.value, self.unseen, self.began = step, value, unseen, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.began = state.global_step + 1
        if self.began == self.step and not self.unseen:
            for weight in model.parameters():
                weight.register_hook(lambda gradient: torch.full_like(gradient, self.value))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self.began == self.step and self.unseen:
            for weight in (weight for weight in model.parameters() if weight.grad is not None):
                weight.grad.fill_(self.value)


def error_of(work: Callable[[], object]) -> str:
    with pytest.raises(TrainingError) as error:
        work()
    return str(error.value)


def run(bundle: Bundle, scratch: Path, *callbacks: TrainerCallback, **options: Any) -> torch.nn.Module:
    model = load_model(bundle.path)
    train(
        model, examples(bundle.path), [], bundle.contract, SETTINGS, scratch, lambda _: None, callbacks=callbacks,
        **options,
    )  # fmt: skip
    return model


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_step(bundle: Bundle, tmp_path: Path) -> None:
    model = load_model(bundle.path)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias.fill_(float("nan"))
    settings = replace(SETTINGS, steps=3, precision="bf16")  # it would be over before its first line
    said = error_of(lambda: train(model, examples(bundle.path), [], bundle.contract, settings, tmp_path, print))
    assert said == (
        "The loss is nan at step 1. Lower learning_rate (now 0.005) or set precision to fp32 (now bf16): " + HELP
    )
    assert newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(value: float, bundle: Bundle, tmp_path: Path) -> None:
    breaks = Breaks(8, value)
    said = error_of(lambda: run(bundle, tmp_path, breaks))
    kept = tmp_path / "checkpoint-5"
    assert said == (
        f"The gradient norm is {'nan' if value != value else 'inf'} at step 8. Lower learning_rate (now 0.005): {HELP} "
        f"Its last good weights, of step 5, are in {kept}."
    )
    assert breaks.began == 8  # in the very step
    assert newest_checkpoint(tmp_path) == kept
    again: list[str] = []
    train(load_model(bundle.path), examples(bundle.path), [], bundle.contract, SETTINGS, tmp_path, again.append)
    assert f"resuming from step 5 ({kept})" in again


def test_weights_that_are_not_finite_are_not_kept(bundle: Bundle, tmp_path: Path) -> None:
    said = error_of(lambda: run(bundle, tmp_path, Breaks(10, unseen=True)))  # a checkpoint's step
    assert said.startswith("The weight vision_model.embeddings.class_embedding is not finite at step 10. Lower")
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]
    weights = load_file(tmp_path / "checkpoint-5" / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_another_training_can_start_from_the_last_good_weights(bundle: Bundle, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundle.path)
    bundle = replace(bundle, contract=replace(bundle.contract, mean=(0.1, 0.2, 0.3), resample="bilinear"))
    said = error_of(lambda: run(bundle, tmp_path / "s", Breaks(8), tokenizer=tokenizer))
    kept = tmp_path / "s" / "checkpoint-5"
    assert said.endswith(f"are in {kept}; to train on from them, make that directory the start of base_model.")
    start = LocalModel(path=str(kept), max_caption_tokens=16)
    (tmp_path / "base").mkdir()
    write_base(tmp_path / "base", start, {}, tmp_path / "unused", print, print)
    base = open_bundle(tmp_path / "base" / "bundle")
    good, found = load_file(kept / "model.safetensors"), load_model(base.path).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in good.items())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "image_size_px", "mean", "std", "resample"):
        assert getattr(base.contract, name) == getattr(bundle.contract, name), name
    assert json.loads((tmp_path / "base" / "base.json").read_text())["name"] == "checkpoint-5"
