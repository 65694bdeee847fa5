"""Where the rows of a Hugging Face data set come from: shard files, or the hub through `datasets`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vlm_assets.data.sources.base import Log, silent


@dataclass(frozen=True)
class Column:
    """What the data set declares of a column."""

    kind: str = ""  # its type, as the data set calls it; "" = not declared
    labels: tuple[str, ...] = ()  # of class labels: what their numbers stand for


@dataclass(frozen=True)
class Row:
    """One row as the data set has it."""

    where: str  # file or split, and number of the row, from 1
    split: str  # as the data set calls it; "" = it has none
    values: Mapping[str, Any]


def labels_of(feature: Any) -> tuple[str, ...]:
    """The names of a class label, or of a list of them, in a column's declaration as `datasets` writes it (JSON)."""
    if isinstance(feature, list) and feature:
        return labels_of(feature[0])  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(feature, Mapping):
        return ()
    if feature.get("_type") == "ClassLabel":
        return tuple(map(str, feature.get("names") or ()))
    return labels_of(feature.get("feature"))


class Rows(Protocol):
    """A data set of named splits and columns."""

    @property
    def title(self) -> str:
        """What it is called."""
        ...

    @property
    def url(self) -> str:
        """Where it lies, at the very commit; "" = not on the hub."""
        ...

    def fingerprint(self, log: Log = silent) -> str:
        """Hex digest of the content."""
        ...

    def splits(self) -> list[str]:
        """Names of the splits."""
        ...

    def columns(self) -> Mapping[str, Column]:
        """The columns by name."""
        ...

    def total(self, splits: Sequence[str], log: Log = silent) -> int:
        """Number of rows in these splits. Reads them, if it must."""
        ...

    def rows(self, splits: Sequence[str], columns: Sequence[str]) -> Iterator[Row]:
        """Stream the rows of these splits with these columns."""
        ...

    def read(self, path: str) -> bytes:
        """A picture that a row gives by its path. Raises UnreadableFileError."""
        ...
