"""Bundles made once: two tiny ones with different random weights and picture sizes, and one that has learnt."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.tiny import picture_bytes, tiny_bundle
from tests.unit.vlm_assets.training.test_trainer import FAST, examples
from vlm_assets.training.bundling import Parts, write_bundle
from vlm_assets.training.trainer import train
from vlm_serving.bundle import open_bundle
from vlm_serving.model import load_model


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "one")


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "two", seed=7, image_size_px=48)


@pytest.fixture(scope="session")
def trained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fine-tuned with fused attention until it knows its eight pictures, and written as training writes bundles."""
    root = tmp_path_factory.mktemp("trained")
    start = open_bundle(tiny_bundle(root / "start"))
    model = load_model(start.path)
    train(model, examples(start.path), [], start.contract, FAST, root / "scratch", lambda _: None)
    tokenizer = AutoTokenizer.from_pretrained(start.path)
    parts = Parts(model.eval(), tokenizer, start.contract, [picture_bytes(0)], [], "# tiny\n", {})
    return write_bundle(root / "trained", parts).path
