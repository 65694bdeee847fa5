"""Validation: every held-out pair counts, however the batches fall."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.training.test_fine_tuning import validator
from tests.unit.vlm_assets.training.test_trainer import FAST, examples
from vlm_assets.training.batches import IGNORED, Collator, Example, Normaliser, PairDataset
from vlm_assets.training.trainer import train
from vlm_serving.bundle import Bundle, open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.model import load_model


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle"))


def loss_per_token(bundle: Bundle, model: torch.nn.Module, pairs: list[Example]) -> float:
    """By hand, one pair at a time: the sum over all tokens by their number."""
    dataset, collate, normalise = PairDataset(pairs), Collator(bundle.contract), Normaliser(bundle.contract)
    model.eval()
    total = tokens = 0.0
    with torch.no_grad():
        for index in range(len(pairs)):
            batch = normalise(collate([dataset[index]]))
            count = int((batch["labels"] != IGNORED).sum())
            total, tokens = total + float(model(**batch).loss) * count, tokens + count
    return total / tokens


@pytest.mark.parametrize("batch_size", [8, 4])
def test_seven_pairs_are_validated_in_batches_of_eight_and_of_four(
    batch_size: int, bundle: Bundle, tmp_path: Path
) -> None:
    pairs = examples(bundle.path)
    settings = replace(FAST, steps=4, checkpoint_every_steps=4, batch_size=batch_size)
    model = load_model(bundle.path)
    result = train(
        model, pairs, pairs[:7], bundle.contract, settings, tmp_path, lambda _: None, validator=validator(bundle)
    )
    ((step, loss),) = result.val_loss
    assert step == 4
    assert loss == pytest.approx(loss_per_token(bundle, model, pairs[:7]), rel=1e-5)


def test_one_picture_is_judged_by_its_loss_and_the_log_says_why(bundle: Bundle, tmp_path: Path) -> None:
    judge = replace(validator(bundle), pictures=validator(bundle).pictures[:1])
    pairs = examples(bundle.path)
    settings = replace(FAST, steps=40, checkpoint_every_steps=10, patience=1, validation_pictures=1)
    lines: list[str] = []
    result = train(
        load_model(bundle.path), pairs, pairs[:1], bundle.contract, settings, tmp_path, lines.append, validator=judge
    )
    assert any(
        line.startswith("the best checkpoint is told by validation loss: CIDEr is 0 for a corpus of one picture")
        for line in lines
    )
    losses = dict(result.val_loss)
    assert result.kept_step == min(losses, key=losses.__getitem__) > 10  # it learns: CIDEr 0 would have kept the first
    assert result.val_cider == []
    assert any(line.startswith("validation at step 10: CIDEr n/a, exact ") for line in lines)


def test_exact_is_what_the_report_calls_exact(bundle: Bundle) -> None:
    captioner = Captioner(bundle, threads=1)
    judge = validator(bundle)
    said = captioner.caption_pixels(np.stack([picture.pixels for picture in judge.pictures]))
    references = [replace(p, captions=[s.text.upper() + "."]) for p, s in zip(judge.pictures, said, strict=True)]
    assert all(caption.text for caption in said)
    assert replace(judge, pictures=references)(load_model(bundle.path))["exact_match"] == 1.0
