"""Small pictures for people: what is in a dataset, at a glance."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from vlm_assets.lettering import font_of, wrapped

SHEET_COLUMNS = 8
THUMB_PX, MARGIN_PX = 112, 10
LABEL_LINES, LINE_PX, TEXT_PX = 3, 13, 10
MAX_PICTURE_BYTES = 60_000  # these pictures live in Dagster's event log
INK, PAPER, LINE, ACCENT = "#222222", "#ffffff", "#e0e0e0", "#4878a8"


def write_contact_sheet(path: Path, pictures: Sequence[tuple[Image.Image, str]]) -> None:
    """Write pictures with their captions below them, SHEET_COLUMNS to a row, as WebP of at most 60 kB."""
    columns = min(SHEET_COLUMNS, max(len(pictures), 1))
    rows = -(-max(len(pictures), 1) // columns)
    width, height = THUMB_PX + MARGIN_PX, THUMB_PX + LABEL_LINES * LINE_PX + MARGIN_PX
    sheet = Image.new("RGB", (columns * width + MARGIN_PX, rows * height + MARGIN_PX), PAPER)
    for index, (picture, label) in enumerate(pictures):
        place = (MARGIN_PX + (index % columns) * width, MARGIN_PX + (index // columns) * height)
        _draw_cell(sheet, place, picture, label)
    save_small(sheet, path)


def _draw_cell(sheet: Image.Image, place: tuple[int, int], picture: Image.Image, label: str) -> None:
    left, top = place
    thumb = picture.copy()
    thumb.thumbnail((THUMB_PX, THUMB_PX), Image.Resampling.LANCZOS)  # never enlarged: what is tiny looks tiny
    thumb = ImageOps.expand(thumb, 1, LINE)  # or a white picture would not be seen
    sheet.paste(thumb, (left + (THUMB_PX - thumb.width) // 2, top + THUMB_PX - thumb.height))
    draw, font = ImageDraw.Draw(sheet), font_of(TEXT_PX)
    for number, line in enumerate(wrapped(label, font, THUMB_PX, LABEL_LINES)):
        middle = left + (THUMB_PX - font.getlength(line)) / 2
        draw.text((middle, top + THUMB_PX + 2 + number * LINE_PX), line, fill=INK, font=font)


def write_caption_lengths(path: Path, word_counts: Sequence[int]) -> None:
    """Write a histogram of caption lengths in words."""
    figure, axes = axes_of()
    longest = max(word_counts, default=1)
    axes.hist(word_counts, bins=range(min(word_counts, default=1), longest + 2), color=ACCENT, align="left")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="words per caption", ylabel="captions", title=f"Caption lengths (n = {len(word_counts):,})")
    save_figure(figure, path)


def as_markdown(path: Path) -> str:
    """The picture file (PNG, WebP) as a markdown picture that carries its own bytes."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"![{path.stem}](data:image/{path.suffix.removeprefix('.')};base64,{data})"


def save_small(sheet: Image.Image, path: Path) -> None:
    """Lower the quality until the file is small enough, and in the end the size."""
    for quality in (85, 75, 60, 40, 20):
        sheet.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MAX_PICTURE_BYTES:
            return
    sheet.reduce(2).save(path, "WEBP", quality=20, method=6)


def axes_of(height_inches: float = 2.6) -> tuple[Any, Any]:
    """A figure and its axes in the style of all plots here."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(5.2, height_inches), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Any, path: Path) -> None:
    """As PNG, the same bytes for the same figure."""
    figure.savefig(path, format="png", metadata={"Software": None})
