"""Columns of a source's table: finding those that the settings name, and what their values mean."""

import ast
import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vlm_assets.data.sources.base import UnusableRowError
from vlm_assets.errors import SourceError

SHOWN_CHARACTERS = 80
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",  # Karpathy's split of COCO: validation pictures that everybody trains on
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}


def require_column(column: str, columns: Collection[str], where: str, setting: str) -> None:
    """Raise SourceError naming what was found and what comes near if `column` is not among `columns`."""
    if column not in columns:
        raise missing_column([column], columns, where, setting)


def missing_column(wanted: Collection[str], columns: Collection[str], where: str, setting: str) -> SourceError:
    """The error for a table that has none of the `wanted` columns."""
    lower = {column.lower(): column for column in columns}
    found = (difflib.get_close_matches(name.lower(), lower, cutoff=0.5) for name in wanted)
    near = sorted({lower[match] for matches in found for match in matches})
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    names = " or ".join(repr(name) for name in wanted)
    return SourceError(
        f"{where} has no column {names}; it has {', '.join(sorted(columns))}.{hint} Set {setting} to the one to read."
    )


def value_of(values: Mapping[str, Any], column: str) -> Any:
    """The value of a column; "sentences.raw" looks into a struct, or into each struct of a list."""
    if column in values or "." not in column:
        return values.get(column)
    outer, _, inner = column.partition(".")
    value = values.get(outer)
    if isinstance(value, list):
        return [value_of(item, inner) for item in value if isinstance(item, Mapping)]  # pyright: ignore
    return value_of(value, inner) if isinstance(value, Mapping) else None  # pyright: ignore


def text_of(value: object) -> str:
    """A cell as text: nothing is "", 7.0 (a whole number beside missing ones) is "7"."""
    if value is None or value != value:  # NaN stands for nothing
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def captions_of(value: object, column: str) -> tuple[str, ...]:
    """The captions in a cell: a string, or a list of strings, also as JSON or Python writes one; empty are left out.

    Raises UnusableRowError on anything else.
    """
    if isinstance(value, str) and value.startswith(("['", '["')) and value.endswith(("']", '"]')):
        value = _written_list(value) or value
    items: Sequence[object] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
    present = [item for item in items if item is not None and item == item]  # NaN stands for nothing
    texts = [item for item in present if isinstance(item, str)]
    if len(texts) < len(present):
        other = next(item for item in present if not isinstance(item, str))
        detail = f"'{column}' holds {str(other)[:SHOWN_CHARACTERS]}; expected a string or a list of strings"
        raise UnusableRowError("malformed_caption", detail)
    return tuple(text.strip() for text in texts if text.strip())


def _written_list(text: str) -> list[str]:
    """A list of texts in a cell of CSV, which has no lists; empty if it is none."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list) and all(isinstance(item, str) for item in value):  # pyright: ignore[reportUnknownVariableType]
            return value  # pyright: ignore[reportUnknownVariableType]
    return []


def split_of(value: object) -> str:
    """The split that a cell prescribes: train, val or test; "" where it is empty.

    Raises UnusableRowError on another name.
    """
    name = text_of(value)
    if not name:
        return ""
    if name.lower() not in SPLIT_NAMES:
        known = ", ".join(SPLIT_NAMES)
        detail = f"unknown split {name[:SHOWN_CHARACTERS]!r}; use one of {known}, or leave the column out"
        raise UnusableRowError("unknown_split", detail)
    return SPLIT_NAMES[name.lower()]
