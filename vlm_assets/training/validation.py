"""Validation as users will judge: caption held-out pictures with the real Captioner and score CIDEr."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_assets.evaluation.cider import CiderResult, cider
from vlm_assets.evaluation.scores import exact_matches, score_captions
from vlm_assets.evaluation.tokenizer import tokenize
from vlm_serving.bundle import Bundle
from vlm_serving.captioner import Captioner

BATCH = 32
READ_ROWS = 64
CARD_METRICS = ("cider", "bleu_4", "rouge_l", "exact_match")


@dataclass(frozen=True)
class ValidationPicture:
    """One held-out picture at the model's size, with all its captions."""

    pixels: NDArray[np.uint8]  # (3, H, W)
    captions: Sequence[str]


@dataclass(frozen=True)
class CaptionValidator:
    """Scores a model in training. `bundle` gives tokenizer, contract and prompt; its weights are not read."""

    bundle: Bundle
    pictures: Sequence[ValidationPicture]

    def __call__(self, model: Any) -> dict[str, float]:
        """CIDEr (0..10) and share of exact captions (0..1) of the model as it is now; leaves it in eval mode.

        Without `cider` where that could not tell two models apart.
        """
        said, references = self._captions(model), self._references
        exact = {"exact_match": float(exact_matches(said, references).mean())}
        return exact if self.cider_note else {"cider": _cider(said, references).corpus, **exact}

    @cached_property
    def cider_note(self) -> str:
        """Why CIDEr cannot tell models apart on these pictures; empty where it can."""
        return _cider([captions[0] for captions in self._references], self._references).note

    def estimates(self, model: Any) -> dict[str, dict[str, float]]:
        """All metrics with their 95 % intervals over pictures, as {name: {value, low, high, n}}; for the model card."""
        scores = score_captions(self._captions(model), self._references)
        return {name: asdict(scores.metrics[name]) for name in CARD_METRICS}

    @property
    def _references(self) -> list[list[str]]:
        return [list(picture.captions) for picture in self.pictures]

    def _captions(self, model: Any) -> list[str]:
        device = next(model.parameters()).device
        captioner = Captioner(self.bundle, device=str(device), precision="fp32", model=model)
        said: list[str] = []
        for start in range(0, len(self.pictures), BATCH):
            pixels = np.stack([picture.pixels for picture in self.pictures[start : start + BATCH]])
            with torch.autocast("cuda", dtype=torch.bfloat16) if device.type == "cuda" else nullcontext():
                said += [caption.text for caption in captioner.caption_pixels(pixels)]
        return said


def _cider(said: Sequence[str], references: Sequence[Sequence[str]]) -> CiderResult:
    return cider(tokenize(said), [tokenize(captions) for captions in references])


def read_validation(shards: Sequence[Path], limit: int) -> list[ValidationPicture]:
    """At most `limit` pictures of the shard files, chosen by `split_ids`; a few others in memory at a time."""
    import pyarrow.parquet as pq

    from vlm_assets.training.batches import decode_pixels
    from vlm_assets.training.pictures import split_ids

    chosen = split_ids(shards, limit)
    wanted = set(chosen)
    found: dict[str, ValidationPicture] = {}
    for shard in shards:
        with pq.ParquetFile(shard) as file:
            for batch in file.iter_batches(READ_ROWS, columns=["image_id", "image", "captions"]):
                rows = (row for row in batch.to_pylist() if row["image_id"] in wanted)
                for row in rows:
                    found[row["image_id"]] = ValidationPicture(decode_pixels(row["image"]["bytes"]), row["captions"])
    return [found[image_id] for image_id in chosen]
