"""The gallery's cards: a picture, what was said, how surely each word, and where the model looked while it said it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_assets.evaluation.display import CIDER, EXACT
from vlm_assets.evaluation.gallery import Card, CardWord, choose
from vlm_assets.evaluation.pictures import pick_pictures, split_files
from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.scored import Scored
from vlm_assets.evaluation.systems import HEADLINE_SPLIT

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import EvalConfig


def gallery_cards(
    table: CaptionTable, scored: Scored, shards: Path, model: Path, config: EvalConfig
) -> dict[str, list[Card]]:
    """Cards of the report's gallery: random, worst and best pictures of the headline split by CIDEr.

    `model` is the directory of the one that spoke: it looks at these pictures once more, for the maps.
    """
    parts = choose(scored.items[CIDER.key], config.gallery_pictures, config.seed)
    rows = [row for part in parts.values() for row in part]
    said = {row: table.slice(row, 1).to_pylist()[0] for row in rows}
    pictures = pick_pictures(split_files(shards, HEADLINE_SPLIT), {each["image_id"] for each in said.values()})
    grids = attention_grids(
        model, [pictures[said[row]["image_id"]] for row in rows], [said[row]["token_ids"] for row in rows], config
    )
    cards = {
        row: _card(said[row], row, pictures[said[row]["image_id"]], scored, grid)
        for row, grid in zip(rows, grids, strict=True)
    }
    return {name: [cards[row] for row in part] for name, part in parts.items()}


def attention_grids(
    model: Path, pictures: Sequence[bytes], token_ids: Sequence[Sequence[int]], config: EvalConfig
) -> list[NDArray[np.uint8]]:
    """For each picture of a shard (encoded) and its caption: the heat of its words, as an answer shows it."""
    from vlm_assets.evaluation.systems import open_captioner
    from vlm_serving.attention import heat, word_maps

    captioner = open_captioner(model, config)
    grids: list[NDArray[np.uint8]] = []
    for start in range(0, len(pictures), config.batch_size):
        end = start + config.batch_size
        pixels = np.stack([_pixels(picture) for picture in pictures[start:end]])
        grids += [heat(found.maps) for found in word_maps(captioner, pixels, token_ids[start:end])]
    return grids


def _pixels(picture: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), dtype=np.uint8).transpose(2, 0, 1)


def _card(said: Mapping[str, Any], row: int, picture: bytes, scored: Scored, grid: NDArray[np.uint8]) -> Card:
    words = zip(said["caption"].split(), said["word_probabilities"], grid, strict=True)
    return Card(
        image_id=said["image_id"],
        picture=picture,
        words=tuple(CardWord(text, probability, looked) for text, probability, looked in words),
        references=tuple(said["references"]),
        confidence=said["confidence"],
        score=float(scored.items[CIDER.key][row]),
        exact=bool(scored.items[EXACT.key][row] == 1),
    )
