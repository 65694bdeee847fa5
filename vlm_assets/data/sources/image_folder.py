"""Your own pictures: a folder with `metadata.jsonl`, as Hugging Face `datasets` calls it, an "imagefolder".

Each line is a JSON object with `file_name` (relative to the folder) and its caption(s) in `text` or `captions`, a
string or a list of strings. Several lines may name one file; their captions are joined. A column `split` (train, val or
test), where there is one, is honoured. https://huggingface.co/docs/datasets/image_dataset#imagefolder
"""

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vlm_assets.data.sources.base import Attribution, SourceRow
from vlm_assets.errors import SourceError

METADATA = "metadata.jsonl"
CAPTION_COLUMNS = ("text", "captions")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}


@dataclass
class Entry:
    """All that the metadata says about one file."""

    file_name: str
    line: int  # of its first mention
    captions: dict[str, None] = field(default_factory=dict[str, None])  # a set that keeps its order
    group: str = ""
    split: str = ""


class ImageFolderSource:
    """Pictures and captions of one folder. Files without a line and lines without a file come out with a reason."""

    def __init__(self, path: str | Path, caption_column: str = "", group_column: str = "") -> None:
        self.path = Path(path).expanduser()
        self.caption_column = caption_column  # "" = `text`, or else `captions`
        self.group_column = group_column  # "" = every picture stands alone
        self.attribution = Attribution(title=self.path.name, text=f"Pictures of the folder {self.path.name}")

    def fingerprint(self) -> str:
        """Digest of the metadata, of each picture's bytes and of the columns read; reads the whole folder once."""
        state = hashlib.sha256(f"{self.caption_column}|{self.group_column}".encode())
        state.update(self._read_metadata())
        for name, path in sorted(self._files.items()):
            state.update(name.encode("utf-8", "surrogateescape") + b"\0")
            state.update(hashlib.sha256(path.read_bytes()).digest())
        return state.hexdigest()

    def total(self) -> int:
        """Files named in the metadata plus pictures that are not."""
        return len(self._entries) + len(self._unnamed_files)

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the named files in the metadata's order, then the pictures that it does not name."""
        for entry in self._entries.values():
            yield self._row(entry)
        for name in self._unnamed_files:
            yield SourceRow(name, reason="no_metadata_line", detail=f"{METADATA} has no line with this file_name")

    def _row(self, entry: Entry) -> SourceRow:
        where = f"{METADATA}:{entry.line} {entry.file_name}"
        if not entry.captions:
            return SourceRow(where, reason="no_caption", detail=f"'{self._caption_column}' is missing or empty")
        file = self._files.get(entry.file_name)
        if file is None:
            return SourceRow(where, reason="missing_picture", detail=f"no picture {entry.file_name} in the folder")
        try:
            picture = file.read_bytes()
        except OSError as error:
            return SourceRow(where, reason="unreadable_picture", detail=str(error))
        return SourceRow(where, picture, captions=tuple(entry.captions), group=entry.group, split=entry.split)

    @cached_property
    def _files(self) -> Mapping[str, Path]:
        """Pictures by name relative to the folder; `../elsewhere.png` is never among them."""
        self._check_folder()
        candidates = (file for file in sorted(self.path.rglob("*")) if file.suffix.lower() in PICTURE_SUFFIXES)
        return {file.relative_to(self.path).as_posix(): file for file in candidates if file.is_file()}

    @cached_property
    def _unnamed_files(self) -> list[str]:
        return [name for name in self._files if name not in self._entries]

    @cached_property
    def _records(self) -> list[tuple[int, Mapping[str, Any]]]:
        records = [
            (number, self._parse(number, line))
            for number, line in enumerate(self._read_metadata().splitlines(), start=1)
            if line.strip()
        ]
        if not records:
            raise SourceError(f"{self.path / METADATA} is empty. Write one JSON object per picture into it.")
        return records

    @cached_property
    def _entries(self) -> Mapping[str, Entry]:
        columns = {column for _, record in self._records for column in record}
        if self.group_column:
            self._require(self.group_column, columns, "group_column")
        entries: dict[str, Entry] = {}
        for line, record in self._records:
            name = Path(str(record["file_name"])).as_posix()
            entry = entries.setdefault(name, Entry(name, line))
            entry.captions |= dict.fromkeys(self._captions(record.get(self._caption_column), line))
            entry.group = entry.group or _text(record.get(self.group_column, ""))
            entry.split = entry.split or self._split(record.get("split"), line)
        return entries

    @cached_property
    def _caption_column(self) -> str:
        columns = {column for _, record in self._records for column in record}
        if self.caption_column:
            self._require(self.caption_column, columns, "caption_column")
            return self.caption_column
        for column in CAPTION_COLUMNS:
            if column in columns:
                return column
        raise self._missing_column(" or ".join(f"'{column}'" for column in CAPTION_COLUMNS), columns, "caption_column")

    def _captions(self, value: object, line: int) -> list[str]:
        values: list[object] = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
        for item in values:
            if item is not None and not isinstance(item, str):
                raise SourceError(
                    f"{self.path / METADATA}:{line}: '{self._caption_column}' holds {item!r}; expected a string or a "
                    "list of strings."
                )
        return [item.strip() for item in values if isinstance(item, str) and item.strip()]

    def _split(self, value: object, line: int) -> str:
        if value in (None, ""):
            return ""
        if str(value) not in SPLIT_NAMES:
            raise SourceError(
                f"{self.path / METADATA}:{line}: unknown split {value!r}. Use one of {', '.join(SPLIT_NAMES)}, "
                "or leave the column out."
            )
        return SPLIT_NAMES[str(value)]

    def _parse(self, number: int, line: bytes) -> Mapping[str, Any]:
        where = f"{self.path / METADATA}:{number}"
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise SourceError(
                f"{where}: not UTF-8 ({error.reason} at byte {error.start}). Save the file as UTF-8."
            ) from error
        except json.JSONDecodeError as error:
            raise SourceError(
                f"{where}: not a JSON object ({error.msg} at column {error.colno}). Each line is one object, such as "
                '{"file_name": "a.png", "text": "a red coat"}.'
            ) from error
        if not isinstance(record, dict) or not isinstance(record.get("file_name"), str):  # pyright: ignore
            raise SourceError(
                f"{where}: no 'file_name' in {line[:80]!r}. Each line is an object that names its picture."
            )
        return record  # pyright: ignore[reportUnknownVariableType]

    def _read_metadata(self) -> bytes:
        self._check_folder()
        file = self.path / METADATA
        if not file.is_file():
            raise SourceError(
                f"{self.path} has no {METADATA}. Write one line per picture, such as "
                '{"file_name": "a.png", "text": "a red coat"}.'
            )
        return file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # a byte order mark, as Windows editors leave it

    def _check_folder(self) -> None:
        if not self.path.is_dir():
            what = "is not a folder" if self.path.exists() else "does not exist"
            raise SourceError(f"The picture folder {self.path.absolute()} {what}. Set source.image_folder.path to one.")

    def _require(self, column: str, columns: set[str], setting: str) -> None:
        if column not in columns:
            raise self._missing_column(f"'{column}'", columns, setting)

    def _missing_column(self, wanted: str, columns: set[str], setting: str) -> SourceError:
        names = wanted.replace("'", "").split(" or ")
        near = sorted({match for name in names for match in difflib.get_close_matches(name, columns, cutoff=0.5)})
        hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
        return SourceError(
            f"{self.path / METADATA} has no column {wanted}; it has {', '.join(sorted(columns))}.{hint} "
            f"Set {setting} to the one to read."
        )


def _text(value: object) -> str:
    return "" if value is None else str(value)
