"""A real BLIP bundle of ~60,000 random weights, made in a blink: for tests that need a model, not a good one."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from vlm_assets.training.bundling import write_model
from vlm_assets.training.tokenizer import train_wordpiece
from vlm_serving.bundle import Bundle, seal_bundle, write_generation
from vlm_serving.captioner import Captioner
from vlm_serving.generation import DEFAULT_OPTIONS, GenerationOptions
from vlm_serving.golden import write_golden
from vlm_serving.model import build_mini
from vlm_serving.preprocessing import PreprocessingContract
from vlm_serving.resizing import default_resizer

WORDS = ["a red square", "a blue circle on white", "a green dress with long sleeves", "a woman scientist"]


def tiny_bundle(
    path: Path,
    *,
    seed: int = 0,
    image_size_px: int = 32,
    generation: GenerationOptions = DEFAULT_OPTIONS,
) -> Path:
    """Write a sealed bundle with random weights into `path`; returns `path`."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = train_wordpiece(WORDS, vocab_size=200)
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = build_mini(
        vocab_size=len(tokenizer), image_size_px=image_size_px, patch_size_px=16, width=32, heads=2,
        vision_layers=1, text_layers=1, max_caption_tokens=16, seed=seed, **ids,
    )  # fmt: skip
    contract = PreprocessingContract(
        image_size_px=image_size_px, max_caption_tokens=16, resizer=default_resizer(), **ids
    )
    contract = write_model(path, model, tokenizer, contract)
    write_generation(path, "", generation)
    captioner = Captioner(
        Bundle(path, "unsealed", contract, generation=generation), device="cpu", precision="fp32", threads=1
    )
    write_golden(captioner, [picture_bytes(seed + number) for number in range(2)], path)
    (path / "README.md").write_text("# A tiny model with random weights, for tests\n")
    seal_bundle(path, {"base": "random weights"})
    return path


def picture_bytes(seed: int, size_px: tuple[int, int] = (40, 30)) -> bytes:
    """A PNG of coloured noise blocks, different for each seed."""
    import io

    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize(size_px, Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def read_golden(path: Path) -> list[dict[str, object]]:
    """The golden entries of a bundle."""
    return json.loads((path / "golden.json").read_text())
