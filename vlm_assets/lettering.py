"""Text in pictures that people look at: a font that knows more than Latin letters, and lines that fit."""

from functools import cache
from pathlib import Path

from PIL import ImageFont


@cache
def font_of(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and covers most alphabets; Pillow's own font has Latin letters only."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width_px: int, lines: int) -> list[str]:
    """Break `text` at spaces into at most `lines` lines of `width_px`; what does not fit ends in an ellipsis."""
    done, current = list[str](), ""
    for word in text.split():
        longer = f"{current} {word}".strip()
        if font.getlength(longer) <= width_px or not current:
            current = longer
        else:
            done.append(current)
            current = word
    done.append(current)
    if len(done) > lines:
        done = [*done[: lines - 1], done[lines - 1] + " …"]
    return [_clipped(line, font, width_px) for line in done]


def _clipped(line: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    if font.getlength(line) <= width_px:
        return line
    line = line.rstrip(" …")
    while line and font.getlength(line + "…") > width_px:
        line = line[:-1]
    return line + "…"
