"""What every source of captioned pictures offers, whatever its format: a fingerprint and a stream of rows."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

Log = Callable[[str], object]
Slots = Mapping[
    str, str
]  # what one caption says: {"role": "scientist", "gender": "woman"}; "" = says that there is none


SKIPPED = "skipped "  # what the reason begins with if a row is left out on purpose: it is listed, and is no fault


@dataclass(frozen=True)
class SourceRow:
    """One picture with its captions as the source gives them. Exactly one of `picture`, `repeats`, `reason` is set."""

    source_row: str  # where it stands in the source, for a reader who wants to repair it
    picture: bytes | None = None
    repeats: bool = False  # an earlier row brought the picture `file_name`: it is not read again
    reason: str = ""  # why there is no usable picture or caption: a short, countable word such as "missing_picture"
    detail: str = ""
    captions: tuple[str, ...] = ()
    slots: tuple[Slots, ...] = ()  # one per caption, or empty where the source declares none
    group: str = ""  # rows of one group may not be torn apart by a split; "" = a group of its own
    split: str = ""  # the split that the source prescribes; "" = none
    file_name: str = ""  # the picture's name in the source, with its extension; "" = it has none


@dataclass(frozen=True)
class Attribution:
    """Who made the pictures and what is allowed with them; travels to the model card."""

    title: str
    text: str
    licence: str = ""
    url: str = ""


class UnusableRowError(Exception):
    """Why one row gives no picture with a caption. A source turns it into a row with a reason; it never gets out."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def silent(_: str) -> None:
    """A log that nobody reads."""


class Source(Protocol):
    """A source of captioned pictures. Iterating streams: one picture in memory at a time."""

    @property
    def attribution(self) -> Attribution:
        """Whose pictures they are."""
        ...

    def fingerprint(self, log: Log = silent) -> str:
        """Hex digest of the content: changes if, and only if, a row or a picture changes. Reads it, if it must."""
        ...

    def total(self, log: Log = silent) -> int:
        """Number of rows that iterating yields; for progress. Reads the source through, if it must."""
        ...

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the rows in a stable order."""
        ...
