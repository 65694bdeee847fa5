"""Copies of photographs as people make them, and how many of them the search for near duplicates finds.

The pictures are halved by a hash of their name: thresholds are chosen on one half and measured on the other. Pairs of
the clothing set that show the same thing, seen by looking at the closest ones, are named here and are no errors.
"""

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from vlm_assets.data.alignment import Bytes
from vlm_assets.data.dedup import Thresholds, near_duplicates, signature
from vlm_assets.data.workers import in_order

MIN_RECALL, MAX_STRANGERS = 0.95, 0.005  # of each kind of copy; share of photographs joined with another one
SAME_THING = {
    frozenset(pair)
    for pair in (
        ("9fba5065-dc5e-40b8-9548-40d2d498d7a2", "b0d71fba-23a7-4912-b6c6-16b7d8a5bd43"),
        ("74f16421-14fd-43de-9883-cbc02819336e", "2edb1db6-cd17-41d2-88e0-ba34801b656d"),
        ("26d61cdc-a947-45f1-a16c-bf3eb23a67ed", "7eeb4c2f-b0b6-4208-a5ee-aed11bce6214"),
    )
}
Copy = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(quality: int) -> Copy:
    """Re-encoded."""

    def copy(image: Image.Image, _: np.random.Generator) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return copy


def resized(percent: int) -> Copy:
    """Smaller or larger."""
    return lambda image, _: image.resize((image.width * percent // 100, image.height * percent // 100))


def cropped(image: Image.Image, trims: Sequence[float]) -> Image.Image:
    """Without the given shares of left, top, right and bottom."""
    width, height = image.size
    left, top, right, bottom = trims
    return image.crop(
        (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    )


def corner(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """5 % off one side and 5 % off top or bottom."""
    trims = [0.0, 0.0, 0.0, 0.0]
    trims[rng.integers(2) * 2] = trims[rng.integers(2) * 2 + 1] = 0.05
    return cropped(image, trims)


def lit(factor: float) -> Copy:
    """Darker or brighter."""
    return lambda image, _: ImageEnhance.Brightness(image).enhance(factor)


def all_at_once(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Random light, crop, size and quality."""
    image = cropped(lit(rng.uniform(0.9, 1.1))(image, rng), rng.uniform(0, 0.05, 4).tolist())
    return jpeg(int(rng.integers(30, 96)))(resized(int(rng.integers(50, 201)))(image, rng), rng)


COPIES: Mapping[str, Copy] = {
    "JPEG q30": jpeg(30),
    "JPEG q60": jpeg(60),
    "JPEG q95": jpeg(95),
    "resized 50 %": resized(50),
    "resized 75 %": resized(75),
    "resized 150 %": resized(150),
    "resized 200 %": resized(200),
    "crop 0-5 % off each edge": lambda image, rng: cropped(image, rng.uniform(0, 0.05, 4).tolist()),
    "crop 5 % off a corner": corner,
    "crop 5 % off all edges": lambda image, _: cropped(image, (0.05, 0.05, 0.05, 0.05)),
    "brightness -10 %": lit(0.9),
    "brightness +10 %": lit(1.1),
    "all at once": all_at_once,
}


@dataclass(frozen=True)
class Half:
    """Thumbnails of some photographs and of their copies, by kind."""

    names: list[str]
    originals: Bytes
    copies: Mapping[str, Bytes]


def thumbnails(path: Path) -> Bytes:
    """(1 + kinds, 32, 32, 3): the photograph and its copies; random ones repeat for the name."""
    image = Image.open(path).convert("RGB")
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    return np.stack([signature(image), *(signature(copy(image, rng)) for copy in COPIES.values())])


def side_of(path: Path) -> int:
    """Which half a photograph is in: 0 = thresholds are chosen on it, 1 = they are measured."""
    return zlib.crc32(f"half {path.stem}".encode()) % 2


def half_of(paths: Sequence[Path]) -> Half:
    """The photographs with their copies."""
    made = np.stack(list(in_order(thumbnails, paths)))
    copies = {kind: made[:, 1 + number] for number, kind in enumerate(COPIES)}
    return Half([path.stem for path in paths], made[:, 0], copies)


def recall(half: Half, kind: str, thresholds: Thresholds) -> float:
    """Share of the originals that are joined directly with their copy."""
    count = len(half.names)
    found = near_duplicates(np.concatenate([half.originals, half.copies[kind]]), thresholds, every_pair=True)
    return len({first for first, second, _ in found.rows() if second - first == count}) / count


def strangers(half: Half, thresholds: Thresholds) -> list[tuple[str, str]]:
    """Pairs of originals that are joined and show something else."""
    found = near_duplicates(half.originals, thresholds, every_pair=True).rows()
    pairs = [(half.names[first], half.names[second]) for first, second, _ in found]
    return [pair for pair in pairs if frozenset(pair) not in SAME_THING]


def joined_share(half: Half, thresholds: Thresholds) -> float:
    """Share of the originals that are joined with a stranger."""
    return len({name for pair in strangers(half, thresholds) for name in pair}) / len(half.names)
