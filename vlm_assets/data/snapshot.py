"""What an import knows so far: every picture once with all its captions, and the rows that cannot be used.

It is a fold over the rows of a source, in order: the same rows give the same snapshot, however often the import that
read them was killed and started again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from vlm_assets.data.picture_file import PictureFile
from vlm_assets.data.sources.base import SKIPPED, Slots
from vlm_assets.data.tables import slots_json
from vlm_assets.errors import UnusableSourceError

IMAGE_ID_HEX_DIGITS = 16


@dataclass(frozen=True)
class Reading:
    """What one row of the source came to: a picture with captions, or a reason. Holds no pixels."""

    source_row: str
    file_name: str = ""
    reason: str = ""
    detail: str = ""
    sha256: str = ""  # of the decoded pixels and the size: a PNG and its re-encoding are one picture
    file: PictureFile | None = None
    repeats: bool = False  # shows the picture that an earlier reading of `file_name` holds
    captions: tuple[tuple[str, Slots], ...] = ()
    empty_captions: int = 0
    group: str = ""
    split: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Reading":
        """Read what `to_json` wrote."""
        file: Any = PictureFile(**value["file"]) if value["file"] else None
        captions: Any = tuple((text, slots) for text, slots in value["captions"])
        return cls(**(value | {"file": file, "captions": captions}))


class Mention(NamedTuple):
    """What one row of the source says of its picture."""

    source_row: str
    number: int  # its place in the whole source
    captions: tuple[int, ...]  # which of the picture's it says
    group: str  # "" = none
    split: str  # "" = none


@dataclass(slots=True)
class Picture:
    """One picture of the snapshot, as far as the rows read so far tell. Who trains is decided row by row, later."""

    sha256: str
    file: PictureFile
    file_name: str  # of its first row
    captions: dict[str, int] = field(default_factory=dict[str, int])  # and their numbers; the first is the primary
    slots: list[Slots] = field(default_factory=list[Slots])  # by caption
    mentions: list[Mention] = field(default_factory=list[Mention])  # by the rows that show exactly these pixels

    @property
    def image_id(self) -> str:
        """What the picture is called everywhere else."""
        return self.sha256[:IMAGE_ID_HEX_DIGITS]

    def to_row(self) -> dict[str, Any]:
        """The picture as a row of rows.parquet."""
        source_rows, numbers, captions, groups, splits = zip(*self.mentions, strict=True)
        return {
            "image_id": self.image_id,
            "sha256": self.sha256,
            "width": self.file.width,
            "height": self.file.height,
            "format": self.file.format,
            "captions": list(self.captions),
            "slots": slots_json(self.slots),
            "copies": len(self.mentions),
            "file_name": self.file_name,
            "source_rows": source_rows,
            "row_numbers": numbers,
            "row_captions": captions,
            "groups": groups,
            "given_splits": splits,
            "mode": self.file.mode,
            "exif_orientation": self.file.orientation,
            "frames": self.file.frames,
            "transparent": self.file.transparent,
            "file_bytes": self.file.size_bytes,
        }

    def note(self, reading: Reading, number: int) -> None:
        """Take one more row that shows the picture; `number` is its place in the source."""
        for caption, slots in reading.captions:
            if caption not in self.captions:
                self.captions[caption] = len(self.slots)
                self.slots.append(slots)
        said = tuple(self.captions[caption] for caption, _ in reading.captions)
        self.mentions.append(Mention(reading.source_row, number, said, reading.group, reading.split))


def count_reasons(rows: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """How many rows there are, by reason, most frequent first."""
    return dict(Counter(row["reason"] for row in rows).most_common())


class Snapshot:
    """Collects readings: merges those that show the same pixels, puts aside those that cannot be used."""

    def __init__(self, total: int, max_bad_fraction: float) -> None:
        self.pictures: dict[str, Picture] = {}
        self.quarantine: list[dict[str, str]] = []
        self.skipped: list[dict[str, str]] = []  # left out on purpose: no fault of the source
        self.rows_read = self.empty_captions = 0
        self._total, self._max_bad_fraction = total, max_bad_fraction
        self._first: dict[str, tuple[str, str, str]] = {}  # by file name: sha256 of its picture, or what is wrong

    def add(self, reading: Reading) -> bool:
        """Take one reading; True if it shows a picture that has not been seen before.

        Raises SourceError as soon as more rows are unusable than may be.
        """
        number = self.rows_read
        self.rows_read += 1
        self.empty_captions += reading.empty_captions
        reading = self._resolved(reading)
        if not reading.sha256:
            self._put_aside(reading)
            return False
        new = reading.sha256 not in self.pictures
        if new and reading.file:
            self.pictures[reading.sha256] = Picture(reading.sha256, reading.file, reading.file_name)
        self.pictures[reading.sha256].note(reading, number)
        return new

    def check(self) -> None:
        """Raise SourceError if nothing was usable, or too much was not."""
        if not self.pictures or self._too_many():
            raise self._unusable()

    def reasons(self) -> dict[str, int]:
        """How many rows were unusable, by reason, most frequent first."""
        return count_reasons(self.quarantine)

    def split_conflicts(self) -> int:
        """How many pictures have rows for which the source prescribes different splits."""
        return sum(len({said.split for said in one.mentions} - {""}) > 1 for one in self.pictures.values())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the pictures as rows of rows.parquet, in the order met."""
        return (picture.to_row() for picture in self.pictures.values())

    def _put_aside(self, reading: Reading) -> None:
        columns = ("source_row", "file_name", "reason", "detail")
        aside = self.skipped if reading.reason.startswith(SKIPPED) else self.quarantine
        aside.append({name: getattr(reading, name) for name in columns})
        if self._too_many():
            raise self._unusable()

    def _too_many(self) -> bool:
        """Rows that are skipped count on neither side; those still to come may only tighten the limit."""
        return len(self.quarantine) > self._max_bad_fraction * self._wanted

    @property
    def _wanted(self) -> int:
        return max(self._total, self.rows_read) - len(self.skipped)

    def _unusable(self) -> UnusableSourceError:
        bad, wanted = len(self.quarantine), self._wanted
        if not wanted:
            first = self.skipped[0]
            return UnusableSourceError(
                f"All {len(self.skipped):,} rows of the source are skipped, as its settings say. First: "
                f"{first['source_row']}: {first['reason']}. Loosen them."
            )
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.reasons().items())
        first = self.quarantine[0] if self.quarantine else {"source_row": "", "detail": ""}
        detail = first["detail"] if first["detail"].endswith((".", "!", "?", "…")) else f"{first['detail']}."
        which, stopped = f"{bad:,} of {wanted:,} rows of the source are unusable ({100 * bad / wanted:.1f} %; ", ""
        if self.rows_read < self._total:
            stopped = f" Stopped after {self.rows_read:,} rows."
            if bad == self.rows_read - len(self.skipped):
                which = f"All rows read so far ({bad:,} of {wanted:,}) are unusable ("
        return UnusableSourceError(
            f"{which}{reasons}), allowed are {100 * self._max_bad_fraction:g} %.{stopped} First: "
            f"{first['source_row']}: {detail} Repair the source, or raise max_bad_fraction."
        )

    def _resolved(self, reading: Reading) -> Reading:
        """A reading that repeats a file has its picture, or what is wrong with it."""
        if reading.repeats:
            sha256, reason, detail = self._first[reading.file_name]
            return replace(reading, sha256=sha256, reason=reason, detail=detail)
        self._first[reading.file_name] = (reading.sha256, reading.reason, reading.detail)
        return reading
