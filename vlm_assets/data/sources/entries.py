"""What a table says about pictures, gathered: several rows of one picture become one entry with all their captions."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from vlm_assets.data.sources.base import Slots, SourceRow
from vlm_assets.data.sources.files import FileInfo, Files
from vlm_assets.errors import UnreadableFileError
from vlm_serving.images import DEFAULT_LIMITS


@dataclass
class Entry:
    """All that the rows of one picture say, as far as they agree on its group and split."""

    where: str  # of its first row
    file_name: str = ""
    captions: dict[str, Slots] = field(default_factory=dict[str, Slots])  # in the order met
    group: str = ""
    split: str = ""
    reason: str = ""  # why the row cannot be used, whatever its picture is
    detail: str = ""

    def read(self, files: Files, info: FileInfo) -> SourceRow:
        """The entry with its picture; or, if that is too large or cannot be read, as a row to put aside."""
        if info.size_bytes > DEFAULT_LIMITS.max_bytes:
            limit = f"{info.size_bytes:,} bytes, the limit is {DEFAULT_LIMITS.max_bytes:,}"
            return self.unusable("picture_too_large", limit)
        try:
            picture = files.read(info.name)
        except UnreadableFileError as error:
            return self.unusable("unreadable_picture", str(error))
        slots = tuple(self.captions.values())
        return SourceRow(
            self.where,
            picture,
            captions=tuple(self.captions),
            slots=slots if any(slots) else (),
            group=self.group,
            split=self.split,
            file_name=self.file_name,
        )

    def unusable(self, reason: str, detail: str) -> SourceRow:
        """The entry as a row to put aside."""
        return SourceRow(self.where, reason=reason, detail=detail, file_name=self.file_name)


class Entries:
    """Entries in the order of their first rows.

    Rows of one picture that name different groups or splits stay apart: the import sees that their pictures are equal,
    joins the groups and counts the conflict.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._last: dict[str, Entry] = {}  # by picture

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
        entry = self._last.get(file_name)
        if entry is None or not (_agree(entry.group, group) and _agree(entry.split, split)):
            entry = self._last[file_name] = Entry(where, file_name)
            self._entries.append(entry)
        for caption in captions:
            entry.captions.setdefault(caption, slots or {})
        entry.group = entry.group or group
        entry.split = entry.split or split

    def add_unusable(self, where: str, reason: str, detail: str, file_name: str = "") -> None:
        """Take a row that cannot be used."""
        self._entries.append(Entry(where, file_name, reason=reason, detail=detail))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other
