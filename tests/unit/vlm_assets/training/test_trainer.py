"""Training: it learns by heart what it is given, and says what is missing."""

from pathlib import Path

import pytest

from tests.tiny import picture_bytes, tiny_bundle
from vlm_assets.errors import TrainingError
from vlm_assets.training.batches import Example
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.trainer import train
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.images import decode_picture
from vlm_serving.model import load_model

CAPTIONS = [
    "a red square",
    "a blue circle",
    "a green dress",
    "a woman scientist",
    "a dress",
    "a circle",
    "a red dress",
    "sleeves",
]
FAST = TrainSettings(
    steps=150, batch_size=8, learning_rate=5e-3, precision="fp32", threads=1, label_smoothing=0.0, attention="fused",
    validation_pictures=0,
)  # fmt: skip


def examples(bundle: Path) -> list[Example]:
    captioner = Captioner(open_bundle(bundle))
    contract = captioner.bundle.contract
    pairs: list[Example] = []
    for number, caption in enumerate(CAPTIONS):
        ids = captioner.tokenizer.encode(caption, add_special_tokens=False)
        pairs.append(Example(picture_bytes(number, (32, 32)), (contract.bos_token_id, *ids, contract.eos_token_id)))
    return pairs


def test_eight_pictures_learnt_by_heart_come_back_verbatim_through_the_captioner(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    captioner = Captioner(bundle, threads=1)
    captioner.model.train()
    result = train(captioner.model, examples(bundle.path), [], bundle.contract, FAST, tmp_path / "scratch", print)
    captioner.model.eval()
    said = captioner.caption([decode_picture(picture_bytes(number, (32, 32))) for number in range(len(CAPTIONS))])
    assert [caption.text for caption in said] == CAPTIONS
    assert all(caption.confidence > 0.5 for caption in said)
    assert (result.steps, result.resumed_from_step) == (150, 0)
    assert result.train_loss[-1][1] < 0.2 < result.train_loss[0][1]


def test_an_empty_train_split_is_an_error_before_any_work(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    with pytest.raises(TrainingError, match="nothing to learn from: the train split is empty"):
        train(load_model(bundle.path), [], [], bundle.contract, FAST, tmp_path / "scratch", print)
