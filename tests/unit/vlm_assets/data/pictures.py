"""Pictures made on the spot for the tests of the data stage."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlm_assets.data.sources.base import Attribution, Log, SourceRow, silent


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Coarse coloured blocks, different for each seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


def textured(seed: int) -> Image.Image:
    """Sharp noise over coarse blocks, 128 x 96: nothing is wrong with it."""
    noise = np.random.default_rng(seed).integers(0, 60, (96, 128, 3), dtype=np.uint8)
    return Image.fromarray(noise + np.asarray(picture(seed, (128, 96))) // 4 * 3)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The picture in a file format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int) -> bytes:
    """One of the coloured pictures as a PNG."""
    return encoded(picture(seed))


class ListSource:
    """A source of rows held in memory."""

    def __init__(self, rows: Sequence[SourceRow]) -> None:
        self.rows = list(rows)
        self.attribution = Attribution("test", "made for a test", "MIT")

    def fingerprint(self, log: Log = silent) -> str:
        return str(len(self.rows))

    def total(self, log: Log = silent) -> int:
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


def write_folder(path: Path, lines: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Path:
    """An image folder: metadata of `lines`, and a picture for each of `names` (default: those that the lines name)."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for seed, name in enumerate(dict.fromkeys(names or [str(line["file_name"]) for line in lines])):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(seed))
    return path
