"""Bundles with random weights in the sizes that are served: what a model says does not matter to its speed."""

from pathlib import Path

import torch
from transformers import BlipConfig, BlipForConditionalGeneration

from vlm_assets.training.bundling import write_model
from vlm_assets.training.tokenizer import train_wordpiece
from vlm_serving.bundle import Bundle, seal_bundle, write_generation
from vlm_serving.captioner import Captioner
from vlm_serving.generation import GenerationOptions
from vlm_serving.golden import write_golden
from vlm_serving.model import build_mini
from vlm_serving.preprocessing import PreprocessingContract
from vlm_serving.resizing import default_resizer

SIZE_PX = {"mini": 96, "base": 384}
VOCABULARY = {"mini": 4000, "base": 30522}


def random_bundle(path: Path, size: str, tokens: int = 20, seed: int = 0) -> Path:
    """A sealed bundle of blip-mini's or BLIP-base's shapes; every caption is `tokens` tokens long. Returns `path`."""
    path.mkdir(parents=True)
    tokenizer = train_wordpiece((f"word{number}" for number in range(VOCABULARY[size])), VOCABULARY[size])
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    contract = PreprocessingContract(image_size_px=SIZE_PX[size], resizer=default_resizer(), **ids)
    contract = write_model(path, _model(size, len(tokenizer), ids, seed), tokenizer, contract)
    options = GenerationOptions(max_new_tokens=tokens, min_new_tokens=tokens)
    write_generation(path, "", options)
    captioner = Captioner(Bundle(path, "unsealed", contract, generation=options), device="cpu", precision="fp32")
    from tests.tiny import picture_bytes

    write_golden(captioner, [picture_bytes(seed)], path)
    (path / "README.md").write_text("# Random weights, for measurements\n")
    seal_bundle(path, {"base": "random weights"})
    return path


def _model(size: str, vocabulary: int, ids: dict[str, int], seed: int) -> BlipForConditionalGeneration:
    if size == "mini":
        return build_mini(vocab_size=vocabulary, seed=seed, **ids)
    torch.manual_seed(seed)
    config = BlipConfig(
        vision_config={"image_size": SIZE_PX[size], "initializer_range": 0.02},
        text_config={"vocab_size": vocabulary, "sep_token_id": ids["eos_token_id"], **ids},
    )
    return BlipForConditionalGeneration(config)
