"""Where a model starts: a directory taken as it is, and what is said when there is none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_bundle
from vlm_assets.errors import ConfigError
from vlm_assets.training.base import base_inputs, write_base
from vlm_assets.training.config import HubModel, LocalModel
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.model import load_model


def ignore(*_: Any) -> None:
    """A log and a metric that nobody reads."""


def make(out: Path, start: HubModel | LocalModel) -> dict[str, Any]:
    out.mkdir()
    return write_base(out, start, {"base_model": "v"}, out / "scratch", ignore, ignore)


def test_a_local_model_becomes_a_bundle_with_the_same_weights(tmp_path: Path) -> None:
    source = tiny_bundle(tmp_path / "source")
    summary = make(tmp_path / "out", LocalModel(path=str(source), max_caption_tokens=12))
    bundle = open_bundle(tmp_path / "out" / "bundle")
    assert Captioner(bundle, threads=1).check_golden() == 3
    assert (bundle.contract.image_size_px, bundle.contract.max_caption_tokens) == (32, 12)
    assert bundle.contract.bos_token_id == open_bundle(source).contract.bos_token_id
    assert summary["name"] == "source"
    ours, theirs = load_model(bundle.path).state_dict(), load_model(source).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_files_of_a_local_model_decide_its_version(tmp_path: Path) -> None:
    one, other = tiny_bundle(tmp_path / "one"), tiny_bundle(tmp_path / "other", seed=1)
    prints = [base_inputs(LocalModel(path=str(path))) for path in (one, one, other)]
    assert prints[0] == prints[1]
    assert prints[0]["model.safetensors"] != prints[2]["model.safetensors"]


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no config\.json in .*nowhere.*save_pretrained"):
        make(tmp_path / "out", LocalModel(path=str(tmp_path / "nowhere")))


def test_a_model_without_its_tokenizer_is_refused(tmp_path: Path) -> None:
    source = tiny_bundle(tmp_path / "source")
    (source / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"there is no tokenizer in .*source.*Save it beside the model"):
        base_inputs(LocalModel(path=str(source)))


def test_a_hub_that_cannot_be_reached_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"blip-image-captioning-base@82a37760796d cannot be loaded.*blip_mini"):
        make(tmp_path / "out", HubModel())


def test_pickled_weights_are_read_without_running_code_and_kept_as_safetensors(tmp_path: Path) -> None:
    """The hub's BLIP at the pinned revision has its weights as pytorch_model.bin only."""
    source = tiny_bundle(tmp_path / "source")
    weights = load_model(source).state_dict()
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    make(tmp_path / "out", LocalModel(path=str(source), max_caption_tokens=12))
    written = load_model(tmp_path / "out" / "bundle").state_dict()
    assert all(torch.equal(written[name], weights[name]) for name in weights)


class Attack:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    source = tiny_bundle(tmp_path / "source")
    torch.save({"weight": Attack(tmp_path / "owned")}, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="source cannot be loaded"):
        make(tmp_path / "out", LocalModel(path=str(source), max_caption_tokens=12))
    assert not (tmp_path / "owned").exists()


def test_more_tokens_than_the_model_has_places_for_is_refused_before_any_work(tmp_path: Path) -> None:
    source = tiny_bundle(tmp_path / "source")
    with pytest.raises(ConfigError, match=r"max_caption_tokens is 40, but source has places for 24 tokens"):
        make(tmp_path / "out", LocalModel(path=str(source)))
