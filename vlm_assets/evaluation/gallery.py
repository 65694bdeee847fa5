"""Which pictures are shown beside their captions, and a contact sheet of them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vlm_assets.lettering import font_of, wrapped

SHEET_MAX_BYTES = 120_000
EMBED_PX = 224  # the report's pictures: enough for a screen, small enough for a file that is mailed around
EMBED_PNG_BYTES = 40_000
INK, GREY, GREEN, PAPER, LINE = "#1d2430", "#667085", "#067647", "#ffffff", "#e4e7ec"


@dataclass(frozen=True)
class CardWord:
    """A word of a caption: how sure it was, 0..1, and how much the model looked at each patch, uint8 (G, G)."""

    text: str
    probability: float
    looked: NDArray[np.uint8]

    @property
    def grid(self) -> str:
        """`looked` in base64, by rows."""
        return base64.b64encode(self.looked.tobytes()).decode()


@dataclass(frozen=True)
class Card:
    """A picture with what was said of it. `exact`: the caption is one of the references, word for word."""

    image_id: str
    picture: bytes
    words: tuple[CardWord, ...]
    references: tuple[str, ...]
    confidence: float
    score: float
    exact: bool

    @property
    def caption(self) -> str:
        """All words."""
        return " ".join(word.text for word in self.words)

    @property
    def data_uri(self) -> str:
        """The picture for an HTML `src`, at most 224 px; JPEG where PNG would be large (photographs)."""
        picture = Image.open(io.BytesIO(self.picture)).convert("RGB")
        picture.thumbnail((EMBED_PX, EMBED_PX), Image.Resampling.LANCZOS)
        data, kind = _encoded(picture, "PNG"), "png"
        if len(data) > EMBED_PNG_BYTES:
            data, kind = _encoded(picture, "JPEG", quality=85), "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def choose(scores: NDArray[np.float64], count: int, seed: int) -> dict[str, list[int]]:
    """Rows for the gallery's parts: `random` (seeded, in row order), `worst` and `best` by score; earlier rows first.

    Parts never share a picture, and on few pictures the later parts are shorter: random, then worst, then best.
    """
    generator = np.random.default_rng(seed)
    taken = sorted(generator.permutation(len(scores))[:count].tolist())
    left = [row for row in np.argsort(scores, kind="stable").tolist() if row not in set(taken)]
    worst = left[:count]
    best = sorted(left[count:], key=lambda row: (-scores[row], row))[:count]
    return {"random": taken, "worst": worst, "best": best}


def contact_sheet(cards: Sequence[Card], columns: int = 4, max_bytes: int = SHEET_MAX_BYTES) -> bytes:
    """A PNG of at most `max_bytes`: pictures in a grid, the caption below, the reference where they differ.

    Pictures shrink until it fits.
    """
    data = b""
    for tile_px in (160, 128, 104, 80, 64, 48):
        sheet = _draw_sheet(cards, columns, tile_px)
        for colours in (256, 96):
            data = _encoded(sheet.quantize(colours, dither=Image.Dither.NONE), "PNG", optimize=True)
            if len(data) <= max_bytes:
                return data
    return data


def _draw_sheet(cards: Sequence[Card], columns: int, tile_px: int) -> Image.Image:
    font, margin = font_of(13), 14
    width_px, text_px = max(tile_px, 168), 92
    height_px = tile_px + text_px
    rows = -(-len(cards) // columns)
    size = (columns * (width_px + margin) + margin, rows * (height_px + margin) + margin)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, card in enumerate(cards):
        x = margin + (number % columns) * (width_px + margin)
        y = margin + (number // columns) * (height_px + margin)
        draw.rounded_rectangle((x - 5, y - 5, x + width_px + 5, y + height_px + 3), radius=8, outline=LINE)
        picture = ImageOps.contain(Image.open(io.BytesIO(card.picture)).convert("RGB"), (tile_px, tile_px))
        sheet.paste(picture, (x + (width_px - picture.width) // 2, y))
        _write(draw, (x + 2, y + tile_px + 4), card, font, width_px - 4)
    return sheet


def _write(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], card: Card, font: ImageFont.FreeTypeFont, width_px: int
) -> None:
    x, y = place
    for line in wrapped(card.caption or "(nothing)", font, width_px, 2 if not card.exact else 3):
        draw.text((x, y), line, fill=GREEN if card.exact else INK, font=font)
        y += 16
    if not card.exact:
        for line in wrapped(f"ref: {card.references[0]}", font, width_px, 3):
            draw.text((x, y + 2), line, fill=GREY, font=font)
            y += 16


def _encoded(picture: Image.Image, kind: str, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
