"""Small PNGs for people: what is in a dataset, at a glance."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SHEET_COLUMNS = 8
THUMB_PX = 72
LABEL_PX = 34
MAX_PNG_BYTES = 60_000  # these pictures live in Dagster's event log
INK, PAPER, ACCENT = "#222222", "#ffffff", "#4878a8"


def write_contact_sheet(path: Path, pictures: Sequence[tuple[Image.Image, str]]) -> None:
    """Write pictures with their captions below them, SHEET_COLUMNS to a row."""
    columns = min(SHEET_COLUMNS, max(len(pictures), 1))
    rows = -(-max(len(pictures), 1) // columns)
    cell = (THUMB_PX + 24, THUMB_PX + LABEL_PX + 6)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(pictures):
        left, top = (index % columns) * cell[0] + 4, (index // columns) * cell[1] + 4
        thumb = picture.copy()
        thumb.thumbnail((THUMB_PX, THUMB_PX))
        sheet.paste(thumb, (left + (THUMB_PX - thumb.width) // 2, top))
        draw.multiline_text((left, top + THUMB_PX + 2), _wrapped(label), INK, font_size=9, spacing=1)
    _save_small(sheet, path)


def write_caption_lengths(path: Path, word_counts: Sequence[int]) -> None:
    """Write a histogram of caption lengths in words."""
    figure, axes = _axes()
    longest = max(word_counts, default=1)
    axes.hist(word_counts, bins=range(min(word_counts, default=1), longest + 2), color=ACCENT, align="left")
    axes.set(xlabel="words per caption", ylabel="captions", title=f"Caption lengths (n = {len(word_counts):,})")
    _save_figure(figure, path)


def write_split_balance(path: Path, counts: Mapping[str, int]) -> None:
    """Write a bar per split."""
    figure, axes = _axes()
    bars = axes.barh(list(counts), list(counts.values()), color=ACCENT)
    axes.bar_label(bars, fmt="{:,.0f}", padding=2)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="pictures", title=f"Splits (n = {sum(counts.values()):,})")
    _save_figure(figure, path)


def as_markdown(path: Path) -> str:
    """The PNG as a markdown picture that carries its own bytes."""
    return f"![{path.stem}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"


def _wrapped(label: str, columns: int = 18, lines: int = 3) -> str:
    rows = [""]
    for word in label.encode("latin-1", "replace").decode("latin-1").split():
        joined = f"{rows[-1]} {word}".strip()
        if len(joined) <= columns or not rows[-1]:
            rows[-1] = joined[:columns]
        else:
            rows.append(word[:columns])
    return "\n".join(rows[:lines]) + ("…" if len(rows) > lines else "")


def _save_small(picture: Image.Image, path: Path) -> None:
    """Fewer colours until the file is small enough."""
    for colours in (256, 64, 32, 16, 8):
        picture.quantize(colours).save(path, "PNG", optimize=True)
        if path.stat().st_size <= MAX_PNG_BYTES:
            return
    smaller = picture.resize((picture.width // 2, picture.height // 2))
    smaller.quantize(16).save(path, "PNG", optimize=True)


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # not pyplot: no global state, no window

    figure = Figure(figsize=(5.2, 2.6), dpi=90, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save_figure(figure: Any, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
