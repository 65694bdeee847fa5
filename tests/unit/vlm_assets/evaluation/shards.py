"""Small hand-made shards and captioners for the tests of the report side of evaluation."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 60),
    "blue": (40, 60, 210),
    "black": (10, 10, 10),
    "white": (250, 250, 250),
    "yellow": (240, 220, 40),
}
SIZE_PX = 32


def plain_png(rgb: tuple[int, int, int], size_px: int = SIZE_PX) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (size_px, size_px), rgb).save(buffer, "PNG")
    return buffer.getvalue()


def square(colour: str, shade: int = 0) -> dict[str, object]:
    """A row of a shard: a square of a named colour, `shade` grey levels off, captioned with its name."""
    rgb = tuple(min(max(channel + shade, 0), 255) for channel in COLOURS[colour])
    return {
        "image_id": f"{colour}{shade:+d}",
        "image": {"bytes": plain_png(rgb), "path": f"{colour}.png"},
        "captions": [f"a {colour} square", f"one {colour} square on its own"],
        "input_ids": [[1, 2], [1, 3]],
        "slots": json.dumps([{"colour": colour}, {"colour": colour}]),
    }


SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("captions", pa.list_(pa.string())),
        ("input_ids", pa.list_(pa.list_(pa.int32()))),
        ("slots", pa.string()),
    ]
)


def write_split(folder: Path, split: str, rows: Sequence[dict[str, object]], rows_per_file: int = 1000) -> list[Path]:
    """Write `<split>-00000.parquet`, … into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number, start in enumerate(range(0, len(rows), rows_per_file)):
        files.append(folder / f"{split}-{number:05d}.parquet")
        pq.write_table(pa.Table.from_pylist(list(rows[start : start + rows_per_file]), schema=SCHEMA), files[-1])
    return files


class ColourCaptioner:
    """Names the nearest of COLOURS: a captioner that really looks, without a model. Remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def caption_pixels(self, pixels):
        """uint8 (B, 3, H, W) -> B captions, in the shape of vlm_serving.captioner.Caption."""
        assert pixels.dtype == np.uint8
        self.batches.append(pixels.shape)
        return [self._say(picture) for picture in pixels]

    def _say(self, picture):
        mean = picture.mean(axis=(1, 2))
        colour = min(COLOURS, key=lambda name: float(((mean - np.asarray(COLOURS[name])) ** 2).sum()))
        words = tuple(SimpleNamespace(text=word, probability=0.75) for word in ("a", colour, "square"))
        text = " ".join(word.text for word in words)
        return SimpleNamespace(
            text=text, confidence=0.75, token_count=4, embedding=np.zeros(2), words=words, token_ids=(6, 7, 8, 3)
        )
