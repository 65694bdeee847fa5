"""From a model in memory to a sealed bundle: weights, tokenizer, contract, golden vectors, drift reference, card."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from transformers import BlipForConditionalGeneration

from vlm_serving.bundle import CARD, REFERENCE, WORDS, Bundle, seal_bundle, sha256_of, write_contract, write_generation
from vlm_serving.captioner import Captioner
from vlm_serving.generation import DEFAULT_OPTIONS, GenerationOptions
from vlm_serving.golden import write_golden
from vlm_serving.picture_stats import picture_statistics
from vlm_serving.preprocessing import PreprocessingContract, decode_for_model
from vlm_serving.resizing import RESAMPLERS

UNSEALED = "unsealed"


@dataclass(frozen=True)
class Parts:
    """What a bundle is made of."""

    model: BlipForConditionalGeneration
    tokenizer: Any
    contract: PreprocessingContract
    golden: Sequence[bytes]  # encoded pictures
    reference: Sequence[tuple[str, bytes]]  # (image_id, encoded picture) of the validation split
    card: str
    lineage: Mapping[str, Any]
    prompt: str = ""  # what the model was trained to continue
    generation: GenerationOptions = DEFAULT_OPTIONS  # how it captions when nobody says otherwise
    taught: Sequence[str] = ()  # words of the captions that it was trained on


def write_bundle(path: Path, parts: Parts) -> Bundle:
    """Write and seal a bundle in the empty directory `path`."""
    path.mkdir(parents=True, exist_ok=True)
    contract = write_model(path, parts.model, parts.tokenizer, parts.contract)
    write_generation(path, parts.prompt, parts.generation)
    unsealed = Bundle(path, UNSEALED, contract, prompt=parts.prompt, generation=parts.generation)
    captioner = Captioner(unsealed, device="cpu", precision="fp32")
    write_golden(captioner, parts.golden, path)
    if parts.reference:
        _write_reference(captioner, parts.reference, path / REFERENCE)
        (path / WORDS).write_text(json.dumps(parts.taught, ensure_ascii=False) + "\n", encoding="utf-8")
    (path / CARD).write_text(parts.card, encoding="utf-8")
    return seal_bundle(path, parts.lineage)


def write_model(
    path: Path, model: BlipForConditionalGeneration, tokenizer: Any, contract: PreprocessingContract
) -> PreprocessingContract:
    """Weights (safetensors), configuration, tokenizer, image processor; the contract gets the tokenizer's digest."""
    model.save_pretrained(path)
    write_processors(path, tokenizer, contract)
    contract = replace(contract, tokenizer_sha256=sha256_of(path / "tokenizer.json"))
    write_contract(path, contract)
    return contract


def write_processors(path: Path, tokenizer: Any, contract: PreprocessingContract) -> None:
    """What makes a model's input in plain transformers, beside its weights."""
    from transformers import BlipImageProcessorPil

    tokenizer.save_pretrained(path)
    size = {"height": contract.image_size_px, "width": contract.image_size_px}
    processor = BlipImageProcessorPil(
        size=size,
        image_mean=list(contract.mean),
        image_std=list(contract.std),
        resample=RESAMPLERS[contract.resample],
    )
    processor.save_pretrained(path)


def golden_patterns() -> list[bytes]:
    """Two drawn pictures, for a model that comes without any of its own."""
    return [_pattern("crimson", "white"), _pattern("navy", "gold")]


def _pattern(fill: str, ground: str) -> bytes:
    picture = Image.new("RGB", (320, 240), ground)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 40, 260, 200), fill=fill)
    draw.rectangle((130, 90, 190, 150), fill=ground)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _write_reference(captioner: Captioner, pictures: Sequence[tuple[str, bytes]], path: Path) -> None:
    """What the model says and sees on validation pictures: what traffic is later compared with."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [row for batch in _batches(pictures) for row in _reference_rows(captioner, batch)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _reference_rows(captioner: Captioner, batch: Sequence[tuple[str, bytes]]) -> Iterator[dict[str, Any]]:
    pictures = [decode_for_model(data, captioner.bundle.contract) for _, data in batch]
    captions = captioner.caption_pixels(np.stack([picture.pixels for picture in pictures]))
    for (image_id, _), picture, caption in zip(batch, pictures, captions, strict=True):
        statistics = picture_statistics(picture.shown, (picture.width_px, picture.height_px))
        yield {
            "image_id": image_id,
            "embedding": caption.embedding.tolist(),
            **asdict(statistics),
            "caption": caption.text,
            "confidence": caption.confidence,
            "token_count": caption.token_count,
        }


def _batches(items: Sequence[tuple[str, bytes]], size: int = 32) -> Iterator[Sequence[tuple[str, bytes]]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
