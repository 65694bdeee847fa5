"""What a table says about pictures, row by row; a picture that several rows name is read with the first of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from vlm_assets.data.sources.base import Slots, SourceRow
from vlm_assets.data.sources.files import FileInfo, Files
from vlm_assets.errors import UnreadableFileError
from vlm_serving.images import DEFAULT_LIMITS


@dataclass
class Entry:
    """What one row says about its picture."""

    where: str
    file_name: str = ""
    captions: dict[str, Slots] = field(default_factory=dict[str, Slots])  # in the order met
    group: str = ""
    split: str = ""
    repeats: bool = False  # an earlier entry reads the picture
    reason: str = ""  # why the row cannot be used, whatever its picture is
    detail: str = ""

    def read(self, files: Files, info: FileInfo) -> SourceRow:
        """The entry with its picture; or, if that is too large or cannot be read, as a row to put aside."""
        slots = tuple(self.captions.values())
        row = SourceRow(
            self.where,
            repeats=self.repeats,
            captions=tuple(self.captions),
            slots=slots if any(slots) else (),
            group=self.group,
            split=self.split,
            file_name=self.file_name,
        )
        if self.repeats:
            return row
        if info.size_bytes > DEFAULT_LIMITS.max_bytes:
            limit = f"{info.size_bytes:,} bytes, the limit is {DEFAULT_LIMITS.max_bytes:,}"
            return self.unusable("picture_too_large", limit)
        try:
            return replace(row, picture=files.read(info.name))
        except UnreadableFileError as error:
            return self.unusable("unreadable_picture", str(error))

    def unusable(self, reason: str, detail: str) -> SourceRow:
        """The entry as a row to put aside."""
        return SourceRow(self.where, reason=reason, detail=detail, file_name=self.file_name)


class Entries:
    """One entry per row of a table, in its order: which row said what decides splits and shows contradictions."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._read: set[str] = set()  # pictures that an entry reads

    def add(
        self,
        where: str,
        file_name: str,
        captions: tuple[str, ...],
        *,
        slots: Slots | None = None,
        group: str,
        split: str,
    ) -> None:
        """Take one row; `slots` are what each of its captions says."""
        said = dict.fromkeys(captions, slots or {})
        self._entries.append(Entry(where, file_name, said, group, split, repeats=file_name in self._read))
        if captions:  # a row without any is put aside, and does not bring its picture
            self._read.add(file_name)

    def add_unusable(self, where: str, reason: str, detail: str, file_name: str = "") -> None:
        """Take a row that cannot be used."""
        self._entries.append(Entry(where, file_name, reason=reason, detail=detail))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)
