"""Slot accuracy: does the caption say what the source declares about the picture (role, colour, skin tone, ...)?"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from vlm_assets.errors import CorpusError
from vlm_assets.evaluation.corpus import Floats
from vlm_assets.evaluation.resampling import Labels, pick
from vlm_assets.evaluation.significance import Estimate, bootstrap_mean

Slots: TypeAlias = Mapping[str, str]  # of one reference caption: slot -> value, "" where it has none
Vocabulary: TypeAlias = Mapping[str, Sequence[str]]  # slot -> its values, longest first


@dataclass(frozen=True)
class SlotScores:
    """Shares of captions that name a slot rightly; n counts the pictures that declare it.

    `all_slots` asks for one reference with which the caption agrees in every slot. Per-picture scores are (N,) with
    1, 0, or NaN where the picture does not declare the slot.
    """

    slots: dict[str, Estimate]
    all_slots: Estimate
    items: dict[str, Floats]
    all_items: Floats

    def to_json(self) -> dict[str, Any]:
        """The estimates as plain JSON types."""
        return {
            "slots": {name: asdict(found) for name, found in self.slots.items()},
            "all_slots": asdict(self.all_slots),
        }


def slot_vocabulary(rows: Sequence[Sequence[Slots]]) -> dict[str, tuple[str, ...]]:
    """Every value that any reference of any picture declares, by slot, longest first; "" is no value."""
    found: dict[str, set[str]] = {}
    for slots in (slots for row in rows for slots in row):
        for name, value in slots.items():
            found.setdefault(name, set()).add(_plain(value))
    return {
        name: tuple(sorted(values - {""}, key=lambda value: (-len(value), value))) for name, values in found.items()
    }


def slot_value(caption: str, values: Sequence[str]) -> str:
    """The longest of `values` that stands in the caption as whole words, in any case; "" where none does.

    A hyphen joins: "light" is not in "a medium-light tone", nor "man" in "a woman".
    """
    text = f" {_plain(caption)} "
    longest_first = sorted(values, key=len, reverse=True)
    return next((value for value in map(_plain, longest_first) if value and f" {value} " in text), "")


def slot_accuracy(
    captions: Sequence[str],
    rows: Sequence[Sequence[Slots]],
    *,
    vocabulary: Vocabulary | None = None,
    clusters: Labels = None,
    resamples: int = 1000,
    seed: int = 0,
) -> SlotScores:
    """Score N captions against the declared slots of their pictures: a list per picture, one mapping per reference.

    A caption is right in a slot when it says the value of any reference, or nothing where a reference has "".
    `vocabulary` says which values there are (default: all that `rows` declare), `clusters` which pictures belong
    together. Pictures without slots do not count.
    Raises CorpusError on different numbers, or when no picture declares a slot.
    """
    _check(captions, rows)
    known = vocabulary or slot_vocabulary(rows)
    reader = _Reader(known)
    said = [reader.read(caption) for caption in captions]
    pairs = list(zip(said, rows, strict=True))
    items = {name: np.array([_right(name, heard, row) for heard, row in pairs]) for name in slot_vocabulary(rows)}
    all_items = np.array([_all_right(heard, row) for heard, row in pairs])

    def share(values: Floats) -> Estimate:
        declared = ~np.isnan(values)
        return bootstrap_mean(values[declared], clusters=pick(clusters, declared), resamples=resamples, seed=seed)

    return SlotScores({name: share(values) for name, values in items.items()}, share(all_items), items, all_items)


class _Reader:
    """What a caption says in each slot; captions repeat, so each is read once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.read = cache(self._read)

    def _read(self, caption: str) -> dict[str, str]:
        return {name: slot_value(caption, values) for name, values in self._vocabulary.items()}


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[\w-]+", text.lower()))


def _right(name: str, heard: Slots, row: Sequence[Slots]) -> float:
    declared = [_plain(slots.get(name, "")) for slots in row]
    if not any(name in slots for slots in row):
        return float("nan")
    return float(heard.get(name, "") in declared)


def _all_right(heard: Slots, row: Sequence[Slots]) -> float:
    names = {name for slots in row for name in slots}
    if not names:
        return float("nan")
    return float(any(all(heard.get(name, "") == _plain(slots.get(name, "")) for name in names) for slots in row))


def _check(captions: Sequence[str], rows: Sequence[Sequence[Slots]]) -> None:
    if len(captions) != len(rows):
        raise CorpusError(f"{len(captions):,} captions but slots of {len(rows):,} pictures; give one list per caption.")
    if not any(slots for row in rows for slots in row):
        raise CorpusError("No picture declares a slot; slot accuracy exists only where the source does. Leave it out.")
