"""Near duplicates side by side, those nearest to the limits first: what a person must see to trust the limits."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from vlm_assets.data.dedup import Links, Thresholds
from vlm_assets.data.picture_file import read_picture
from vlm_assets.data.previews import INK, LINE, LINE_PX, MARGIN_PX, PAPER, TEXT_PX, save_small
from vlm_assets.data.tables import Row, pick_pictures
from vlm_assets.lettering import font_of

PAIRS, COLUMNS = 15, 5
SIDE_PX, GAP_PX = 88, 3
LABEL_LINES = 2


class Pair(NamedTuple):
    """One pair, and how near it is to being none: 1 = at the limit."""

    first: int
    second: int
    mean_levels: float
    cell_levels: float
    nearness: float


def closest_to_limits(links: Links, limits: Thresholds, count: int = PAIRS) -> list[Pair]:
    """The pairs that are nearest to a limit, the nearest first; equal thumbnails, which are farthest from it, last."""
    mean = links.mean_levels / max(limits.mean_levels, 1e-9)
    cell = links.cell_levels / max(limits.cell_levels, 1e-9)
    nearness = np.maximum(mean, cell)
    chosen = np.argsort(-nearness, kind="stable")[:count]
    columns = (links.first, links.second, links.mean_levels, links.cell_levels, nearness)
    pairs = [Pair(*values) for values in zip(*(column[chosen].tolist() for column in columns), strict=True)]
    equal = np.flatnonzero(links.look != np.arange(len(links.look)))[: count - len(pairs)]
    return pairs + [Pair(int(links.look[at]), int(at), 0.0, 0.0, 0.0) for at in equal]


def write_near_duplicates(path: Path, rows: Sequence[Row], raw: Path, links: Links, limits: Thresholds) -> None:
    """Draw up to 15 pairs with their differences against the limits; without any, no file."""
    pairs = closest_to_limits(links, limits)
    if not pairs:
        return
    shown = [rows[position] for pair in pairs for position in (pair.first, pair.second)]
    files = pick_pictures(raw, {row["sha256"] for row in shown})
    pictures = [read_picture(files[row["sha256"]])[1] for row in shown]
    labels = [
        (
            f"mean {pair.mean_levels:.1f} of {limits.mean_levels:g}",
            f"cell {pair.cell_levels:.1f} of {limits.cell_levels:g}",
        )
        for pair in pairs
    ]
    save_small(_sheet(list(zip(pictures[::2], pictures[1::2], strict=True)), labels), path)


def _sheet(pairs: Sequence[tuple[Image.Image, Image.Image]], labels: Sequence[tuple[str, ...]]) -> Image.Image:
    columns = min(COLUMNS, len(pairs))
    width, height = 2 * SIDE_PX + GAP_PX + 2 * MARGIN_PX, SIDE_PX + LABEL_LINES * LINE_PX + MARGIN_PX
    sheet = Image.new("RGB", (columns * width, -(-len(pairs) // columns) * height + MARGIN_PX), PAPER)
    draw, font = ImageDraw.Draw(sheet), font_of(TEXT_PX)
    for index, (pair, label) in enumerate(zip(pairs, labels, strict=True)):
        left, top = (index % columns) * width + MARGIN_PX, (index // columns) * height + MARGIN_PX
        for number, picture in enumerate(pair):
            thumb = ImageOps.contain(picture, (SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
            thumb = ImageOps.expand(thumb, 1, LINE)
            inner = (SIDE_PX - thumb.width) * (1 - number)  # both lean on the middle
            sheet.paste(thumb, (left + number * (SIDE_PX + GAP_PX) + inner, top + SIDE_PX - thumb.height))
        for number, line in enumerate(label):
            middle = left + (2 * SIDE_PX + GAP_PX - font.getlength(line)) / 2
            draw.text((middle, top + SIDE_PX + 3 + number * LINE_PX), line, fill=INK, font=font)
    return sheet
