"""Where the rows of a Hugging Face data set come from: shard files, or the hub through `datasets`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vlm_assets.data.sources.base import Log, silent


@dataclass(frozen=True)
class Row:
    """One row as the data set has it."""

    where: str  # file or split, and number of the row, from 1
    split: str  # as the data set calls it; "" = it has none
    values: Mapping[str, Any]


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

    def columns(self) -> list[str]:
        """Names of the columns."""
        ...

    def total(self, splits: Sequence[str]) -> int:
        """Number of rows in these splits."""
        ...

    def rows(self, splits: Sequence[str], columns: Sequence[str]) -> Iterator[Row]:
        """Stream the rows of these splits with these columns."""
        ...

    def read(self, path: str) -> bytes:
        """A picture that a row gives by its path. Raises UnreadableFileError."""
        ...
