"""From base, shards and pictures to a candidate: its settings, its card that can be followed, faults at once."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny import picture_bytes
from tests.unit.vlm_assets.training.inputs import tiny_inputs
from vlm_assets.data.tables import write_json
from vlm_assets.errors import TrainingError
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import Inputs, write_candidate
from vlm_serving.bundle import Bundle, open_bundle
from vlm_serving.captioner import Captioner, tidy
from vlm_serving.generation import GenerationOptions
from vlm_serving.images import decode_picture

CONFIG = FinetuneConfig(
    steps=60, batch_size=8, learning_rate=5e-3, precision="fp32", threads=1, attention="fused", label_smoothing=0.0,
    checkpoint_every_steps=30, golden_pictures=2, prompt="a", num_beams=3, max_new_tokens=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def made(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, dict[str, Any]]:
    out, scratch = tmp_path_factory.mktemp("candidate"), tmp_path_factory.mktemp("scratch")
    summary = write_candidate(out, inputs, CONFIG, {"base_model": "b" * 16}, scratch, print, lambda *_: None)
    return open_bundle(out / "bundle"), summary


def test_the_bundle_captions_as_it_was_validated(made: tuple[Bundle, dict[str, Any]], inputs: Inputs) -> None:
    bundle, summary = made
    assert (bundle.prompt, bundle.generation) == ("a", GenerationOptions(max_new_tokens=6, num_beams=3))
    written = json.loads((bundle.path / "generation.json").read_text())
    assert {"prompt": "a", "max_new_tokens": 6, "num_beams": 3}.items() <= written.items()
    assert summary["validation"]["exact_match"]["n"] == 8
    assert summary["truncated_captions"] == 3


@pytest.fixture(scope="module")
def card(made: tuple[Bundle, dict[str, Any]]) -> str:
    return (made[0].path / "README.md").read_text(encoding="utf-8")


def test_the_card_names_both_licences_and_the_one_that_covers_the_model(card: str) -> None:
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-sa-4.0"
    assert "- pictures and captions: Blocks · Drawn by a test. · CC0 1.0 · https://example.org" in card
    assert "- base model: Tiny · Random numbers. · CC BY-SA 4.0" in card


def test_the_card_says_where_this_model_ends(card: str, made: tuple[Bundle, dict[str, Any]]) -> None:
    limits = card.split("## Limits")[1]
    assert "Learnt from 24 pairs of Blocks." in limits
    assert "squashed to 32 × 32 pixels" in limits
    assert "at most 6 tokens. 3 captions of the data set were longer than the 16" in limits
    wrong = 100 * (1 - made[1]["validation"]["exact_match"]["value"])
    assert f"Of 8 validation pictures {wrong:.0f} %" in limits
    assert "| captions | 3 beams, at most 6 tokens |" in card


@pytest.mark.parametrize("number", [0, 1])
def test_both_ways_of_use_on_the_card_work_and_agree(
    number: int, card: str, made: tuple[Bundle, dict[str, Any]], tmp_path: Path
) -> None:
    """For somebody without this project: copied from the card, plain transformers captions like the Captioner."""
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    for seed in range(30, 34):
        (tmp_path / "picture.jpg").write_bytes(picture_bytes(seed, (57, 41)))
        code = blocks[number].replace("PATH", str(made[0].path)).replace("picture.jpg", str(tmp_path / "picture.jpg"))
        said = io.StringIO()
        with redirect_stdout(said):
            exec(code, {})
        ours = Captioner(made[0], threads=1).caption([decode_picture(picture_bytes(seed, (57, 41)))])[0]
        assert tidy(said.getvalue()) == ours.text


def test_shards_of_another_base_and_wrong_settings_are_one_list(inputs: Inputs, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for file in inputs.shards.iterdir():
        (shards / file.name).symlink_to(file)
    (shards / "contract.json").unlink()
    contract = replace(open_bundle(inputs.base / "bundle").contract, image_size_px=48)
    write_json(shards / "contract.json", contract.to_json())
    config = CONFIG.model_copy(update={"frozen_vision_layers": 40})
    with pytest.raises(TrainingError) as error:
        write_candidate(
            tmp_path, replace(inputs, shards=shards), config, {}, tmp_path / "scratch", print, lambda *_: None
        )
    lines = str(error.value).splitlines()
    assert lines[0] == "2 things must change before training can start:"
    assert lines[1].startswith(
        "  1. The shards were made for another base model (image_size_px: 48 in the shards, 32 in the base)"
    )
    assert lines[2].startswith("  2. frozen_vision_layers is 40")
    assert not (tmp_path / "scratch").exists()
