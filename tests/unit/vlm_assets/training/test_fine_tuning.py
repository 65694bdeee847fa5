"""Ways to fine-tune: equal whatever the batches, prompt, LoRA, frozen layers, the best checkpoint, faults at once."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BlipForConditionalGeneration

from tests.tiny import picture_bytes, tiny_bundle
from tests.unit.vlm_assets.training.test_trainer import CAPTIONS, FAST, examples
from vlm_assets.errors import TrainingError
from vlm_assets.training.augmentation import Augmentation
from vlm_assets.training.batches import Example, with_prompt
from vlm_assets.training.length_sampler import LengthGroupedSampler
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.trainer import train
from vlm_assets.training.validation import CaptionValidator, ValidationPicture
from vlm_serving.bundle import Bundle, open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.images import decode_picture
from vlm_serving.model import load_model
from vlm_serving.preprocessing import model_pixels


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(tiny_bundle(tmp_path / "bundle"))


def weights(bundle: Bundle, settings: TrainSettings, scratch: Path) -> dict[str, torch.Tensor]:
    model = load_model(bundle.path)
    train(model, examples(bundle.path), [], bundle.contract, settings, scratch, lambda _: None)
    return model.state_dict()


def curve(bundle: Bundle, settings: TrainSettings, scratch: Path) -> list[float]:
    model = load_model(bundle.path)
    result = train(model, examples(bundle.path), [], bundle.contract, settings, scratch, lambda _: None)
    return [loss for _, loss in result.train_loss]


def test_epochs_make_the_steps(bundle: Bundle, tmp_path: Path) -> None:
    settings = replace(FAST, steps=0, epochs=3, batch_size=4)
    result = train(
        load_model(bundle.path), examples(bundle.path), [], bundle.contract, settings, tmp_path / "s", lambda _: None
    )
    assert result.steps == settings.total_steps(len(CAPTIONS)) == 6


def test_a_prompt_is_given_not_learnt_and_the_captioner_starts_from_it(bundle: Bundle, tmp_path: Path) -> None:
    prompted_bundle, model = replace(bundle, prompt="a red"), load_model(bundle.path)
    prompt_ids = Captioner(prompted_bundle, threads=1).prompt_ids
    prompted = with_prompt(examples(bundle.path), prompt_ids, max_tokens=40)
    lines: list[str] = []
    train(
        model, prompted, [], bundle.contract, FAST, tmp_path / "s", lines.append,
        prompt_tokens=len(prompt_ids),
    )  # fmt: skip
    said = Captioner(prompted_bundle, threads=1, model=model).caption(
        [decode_picture(picture_bytes(number, (32, 32))) for number in range(len(CAPTIONS))]
    )
    assert [caption.text for caption in said] == CAPTIONS  # without the prompt, and learnt behind it


def test_a_prompt_pushes_out_last_words_but_never_the_end() -> None:
    (example,) = with_prompt([Example(b"", (5, 7, 8, 9, 3))], [11, 12], max_tokens=6)
    assert example.input_ids == (5, 11, 12, 7, 8, 3)


def test_lora_leaves_a_plain_blip_that_learnt(bundle: Bundle, tmp_path: Path) -> None:
    settings = replace(FAST, lora_rank=8, learning_rate=2e-2, steps=120)
    model = load_model(bundle.path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = train(model, examples(bundle.path), [], bundle.contract, settings, tmp_path / "s", lambda _: None)
    assert result.train_loss[-1][1] < result.train_loss[0][1] - 0.2  # random embeddings stay: little room to learn
    after = model.state_dict()
    assert after.keys() == before.keys()  # nothing of peft is left
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("query" in name for name in changed)
    assert not any("embeddings" in name for name in changed)
    model.save_pretrained(tmp_path / "saved")
    again, info = BlipForConditionalGeneration.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    torch.testing.assert_close(again.state_dict(), after)


def test_lora_killed_between_checkpoints_resumes_to_the_same_weights(bundle: Bundle, tmp_path: Path) -> None:
    settings = replace(FAST, lora_rank=4, lora_dropout=0.2, batch_size=2, steps=20, checkpoint_every_steps=10)
    whole = weights(bundle, settings, tmp_path / "whole")

    class Stop(Exception): ...

    def stop_at_15(name: str, value: float, step: int) -> None:
        if step == 20:
            raise Stop

    model = load_model(bundle.path)
    with pytest.raises(Stop):
        train(model, examples(bundle.path), [], bundle.contract, settings, tmp_path / "s", lambda _: None, stop_at_15)
    resumed = weights(bundle, settings, tmp_path / "s")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(("layers", "frozen"), [(1, "embeddings"), (-1, "post_layernorm")])
def test_frozen_layers_stay_as_they_were(layers: int, frozen: str, bundle: Bundle, tmp_path: Path) -> None:
    before = load_model(bundle.path).state_dict()
    after = weights(bundle, replace(FAST, steps=5, frozen_vision_layers=layers), tmp_path / "s")
    vision = [name for name in before if name.startswith("vision_model") and (frozen in name or "layers.0." in name)]
    assert vision
    assert all(torch.equal(before[name], after[name]) for name in vision)
    assert not torch.equal(before["text_decoder.cls.predictions.bias"], after["text_decoder.cls.predictions.bias"])


def test_recomputed_activations_change_nothing(bundle: Bundle, tmp_path: Path) -> None:
    plain = curve(bundle, replace(FAST, steps=10), tmp_path / "plain")
    recomputed = curve(bundle, replace(FAST, steps=10, gradient_checkpointing=True), tmp_path / "again")
    np.testing.assert_allclose(plain, recomputed, rtol=1e-5)


def validator(bundle: Bundle) -> CaptionValidator:
    pictures = [
        ValidationPicture(model_pixels(decode_picture(picture_bytes(n, (32, 32))), bundle.contract), [caption])
        for n, caption in enumerate(CAPTIONS)
    ]
    return CaptionValidator(bundle, pictures)


def test_the_checkpoint_with_the_best_cider_is_the_one_that_is_left(bundle: Bundle, tmp_path: Path) -> None:
    pairs, judge = examples(bundle.path), validator(bundle)
    seen: list[float] = []

    def falling(model: object) -> dict[str, float]:  # real captions, but the third checkpoint and later count for less
        scores = judge(model)
        seen.append(scores["cider"])
        return {**scores, "cider": scores["cider"] if len(seen) < 3 else 0.0}

    settings = replace(FAST, steps=150, checkpoint_every_steps=30, patience=2, validation_pictures=8)
    model = load_model(bundle.path)
    lines: list[str] = []
    result = train(model, pairs, pairs, bundle.contract, settings, tmp_path / "s", lines.append, validator=falling)
    assert (result.kept_step, result.steps, result.stopped_early) == (60, 120, True)
    assert judge(model)["cider"] == pytest.approx(seen[1])  # the weights of step 60 are back
    assert any("kept the weights of step 60 of 120" in line for line in lines)
    assert len(list((tmp_path / "s").glob("checkpoint-*"))) == 2  # best and last


def test_an_empty_val_split_is_said_before_a_training_that_needs_one(bundle: Bundle, tmp_path: Path) -> None:
    pairs, settings = examples(bundle.path), replace(FAST, validation_pictures=200, patience=3)
    with pytest.raises(TrainingError) as error:
        train(load_model(bundle.path), pairs, [], bundle.contract, settings, tmp_path / "s", lambda _: None)
    assert str(error.value) == (
        "The val split is empty, but validation_pictures is 200 and patience 3: no checkpoint could be told from "
        "another. Give the split a val fraction, or set both to 0: then the last checkpoint is kept."
    )
    assert not (tmp_path / "s").exists()


def test_all_faults_are_said_at_once_before_any_work(bundle: Bundle, tmp_path: Path) -> None:
    bad = [replace(pair, input_ids=(*pair.input_ids, 10**6)) for pair in examples(bundle.path)]
    settings = replace(FAST, steps=0, frozen_vision_layers=40, patience=1, validation_pictures=0)
    with pytest.raises(TrainingError) as error:
        train(load_model(bundle.path), bad, [], bundle.contract, settings, tmp_path / "s", lambda _: None)
    text = str(error.value)
    assert text.startswith("4 things must change before training can start:")
    for fault in ("token 1000000", "steps is 0 and epochs is 0", "frozen_vision_layers is 40", "patience is 1"):
        assert fault in text
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="here fp16 is right")
def test_half_precision_needs_a_gpu(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="precision is fp16, which needs a GPU; none is here"):
        weights(bundle, replace(FAST, precision="fp16"), tmp_path / "s")


OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 79.10 GiB"


@pytest.mark.parametrize(("when", "attention"), [(7, "fused"), (1, "auto")], ids=["in the loop", "in the trial steps"])
def test_exhausted_gpu_memory_names_what_was_asked_and_what_helps(
    when: int, attention: str, bundle: Bundle, tmp_path: Path
) -> None:
    model = load_model(bundle.path)
    forward, calls = model.forward, [0]

    def exhausted(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        if calls[0] == when:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return forward(*args, **kwargs)

    model.forward = exhausted
    settings = replace(FAST, attention=attention)
    with pytest.raises(TrainingError) as error:
        train(model, examples(bundle.path), [], bundle.contract, settings, tmp_path / "s", lambda _: None)
    assert calls[0] == when
    assert str(error.value) == (
        "Out of GPU memory at batch_size 8: 2.25 GiB asked beyond what is free. Lower batch_size and raise "
        "accumulation_steps (now 1), set gradient_checkpointing (now False), or train less: lora_rank (now 0) or "
        "frozen_vision_layers (now 0)."
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=300), st.integers(1, 16), st.integers(0, 5))
def test_grouping_by_length_takes_everything_once_in_an_order_of_seed_and_epoch(
    lengths: list[int], batch: int, epoch: int
) -> None:
    sampler, again = LengthGroupedSampler(lengths, batch, 7), LengthGroupedSampler(lengths, batch, 7)
    sampler.set_epoch(epoch)
    again.set_epoch(epoch)
    order = list(sampler)
    assert order == list(again)
    assert Counter(order) == Counter(range(len(lengths)))


def test_grouped_batches_hold_captions_of_like_length() -> None:
    lengths = [1 + number % 40 for number in range(800)]
    order = list(LengthGroupedSampler(lengths, 16, 0))
    batches = [[lengths[i] for i in order[start : start + 16]] for start in range(0, 800, 16)]
    assert max(max(batch) - min(batch) for batch in batches) <= 2
    sampler = LengthGroupedSampler(lengths, 16, 0)
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_augmented_pictures_stay_pictures() -> None:
    picture = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    assert Augmentation()(picture, (0,)) is picture
    seen = {Augmentation(flip=True)(picture, (key,)).tobytes() for key in range(20)}
    assert seen == {picture.tobytes(), picture[:, :, ::-1].tobytes()}
    means = [float(Augmentation(jitter_share=0.3)(picture, (key,)).mean()) for key in range(50)]
    assert 0.6 * picture.mean() < min(means) < 0.9 * picture.mean()
    assert 1.1 * picture.mean() < max(means) < 1.4 * picture.mean()
