"""Where the model is good and where it is not: the headline split cut by length, brightness, source and content.

A slice's scores are means of the split's per-picture scores, so a picture counts the same in its slice and in the
whole (CIDEr keeps the whole split's word weights). Corpus metrics without per-picture scores (BLEU) have no slices.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlm_assets.evaluation.collapse import plain

TERCILES = ("low", "middle", "high")
SOURCES_SHOWN = 12  # the largest


@dataclass(frozen=True)
class Slice:
    """Some rows of a split that have something in common: `kind` says in what, `name` which."""

    kind: str
    name: str
    rows: NDArray[np.int64]


def length_slices(references: Sequence[Sequence[str]]) -> list[Slice]:
    """Terciles of the first reference's length in words; bounds are in the name."""
    words = np.asarray([len(plain(texts[0]).split()) for texts in references], dtype=np.float64)
    return _terciles("caption length", words, "words")


def brightness_slices(brightness: Sequence[float]) -> list[Slice]:
    """Terciles of the picture's mean brightness."""
    return _terciles("brightness", np.asarray(brightness, dtype=np.float64), "% of white", scale=100)


def slot_slices(slots: Sequence[str]) -> list[Slice]:
    """One slice per slot value that the source declares; of a picture's captions the first decides.

    `slots` are the shards' JSON texts: a list of {slot: value}, one per caption, or "[]".
    """
    rows: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, text in enumerate(slots):
        declared: list[dict[str, str]] = json.loads(text)
        for slot, value in (declared[0] if declared else {}).items():
            rows[slot, str(value) or "(none)"].append(row)
    return [Slice(slot, value, np.asarray(rows[slot, value], dtype=np.int64)) for slot, value in sorted(rows)]


def source_slices(sources: Sequence[str]) -> list[Slice]:
    """One slice per folder of the source, the largest first; none where all lie in one."""
    counts = Counter(sources)
    if len(counts) < 2:
        return []
    return [
        Slice("source", name or "(no folder)", np.flatnonzero([source == name for source in sources]))
        for name, _ in counts.most_common(SOURCES_SHOWN)
    ]


def all_slices(
    references: Sequence[Sequence[str]], brightness: Sequence[float], slots: Sequence[str], sources: Sequence[str],
    minimum: int,
) -> list[Slice]:  # fmt: skip
    """Every slice with at least `minimum` pictures."""
    found = [*length_slices(references), *brightness_slices(brightness), *source_slices(sources), *slot_slices(slots)]
    return [piece for piece in found if len(piece.rows) >= minimum]


def _terciles(kind: str, values: NDArray[np.float64], unit: str, scale: float = 1.0) -> list[Slice]:
    """Cut at the 1/3 and 2/3 quantiles; equal values stay together, so a part may be empty and is then left out."""
    if not len(values):
        return []
    part = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="left")  # (N,) 0, 1 or 2
    found: list[Slice] = []
    for number, title in enumerate(TERCILES):
        rows = np.flatnonzero(part == number)
        if len(rows):
            low, high = scale * values[rows].min(), scale * values[rows].max()
            bounds = f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
            found.append(Slice(kind, f"{title}: {bounds} {unit}", rows))
    return found
