"""WebDataset: tar shards in which the files of one sample share a name and stand side by side.

`000042.jpg`, `000042.txt` and `000042.json` are one sample with the key `000042`; a name is split at the first dot
after its folder, as the webdataset library does (https://github.com/webdataset/webdataset). Shards of img2dataset are
read as they are. Members are read in the order of the shard and never unpacked: a name is only a label, whatever it
says ("/etc/passwd", "../../x"), links and devices are passed over.
"""

import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from vlm_assets.data.sources.base import Attribution, Source, SourceRow
from vlm_assets.data.sources.columns import split_of, text_of
from vlm_assets.data.sources.documents import listed, near
from vlm_assets.data.sources.files import FileInfo, Files, fingerprint, open_files
from vlm_assets.errors import SourceError
from vlm_serving.images import DEFAULT_LIMITS

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
CAPTION_KEYS = ("caption", "captions", "text")
MEMBER_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
META = re.compile(r"__[^/]*__($|/)")  # "__index__" and the like
READ_SUFFIXES = (*PICTURE_SUFFIXES, "txt", "json")


class WebDatasetConfig(dg.Config):
    """Tar shards as webdataset and img2dataset write them: .jpg, .png or .webp beside .txt or .json."""

    kind: Literal["webdataset"] = "webdataset"
    path: str = Field(min_length=1, description="folder or s3://bucket/prefix with .tar, .tar.gz or .tgz shards")
    caption_keys: list[str] = Field(
        default=[], description="keys of .json with the caption(s); empty = the .txt, or else caption, captions or text"
    )
    group_key: str = Field(default="", description="key of .json whose equal values stay in one split; empty = none")
    split_key: str = Field(default="", description="key of .json with train, val or test; empty = no given splits")
    title: str = Field(default="", description="what the set is called in the model card; empty = the folder's name")
    licence: str = Field(default="", description="what is allowed with the pictures; travels to the model card")

    def open(self) -> Source:
        """The source that this describes."""
        files = open_files(self.path, "source.webdataset.path")
        title = self.title or files.uri.rpartition("/")[2]
        attribution = Attribution(title, f"Pictures and captions of {title}", self.licence)
        return WebDatasetSource(files, tuple(self.caption_keys), self.group_key, self.split_key, attribution)


@dataclass
class Sample:
    """The members of one key, in the order of the shard."""

    shard: str
    key: str
    members: dict[str, bytes] = field(default_factory=dict[str, bytes])  # by suffix, in lower case
    repeated: str = ""  # a suffix that is there twice


class UnusableSampleError(Exception):
    """Why a sample is no row: a short, countable reason, and the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class WebDatasetSource:
    """Samples of all shards, shard by shard in order of their names. One sample is in memory at a time."""

    def __init__(
        self, files: Files, caption_keys: Sequence[str], group_key: str, split_key: str, attribution: Attribution
    ) -> None:
        self.files = files
        self.caption_keys = tuple(caption_keys)
        self.group_key, self.split_key = group_key, split_key
        self.attribution = attribution

    def fingerprint(self) -> str:
        """Digest of the shards' content and of the keys read."""
        return fingerprint(self.files, self._shards, *self.caption_keys, "", self.group_key, self.split_key)

    def total(self) -> int:
        """Number of samples; tar has no index, so this reads the shards through."""
        return self._total

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield one row per sample."""
        for shard in self._shards:
            for sample in read_samples(self.files, shard.name):
                yield self._row(sample)

    def _row(self, sample: Sample) -> SourceRow:
        where = f"{sample.shard} {sample.key}"
        suffix = next((suffix for suffix in PICTURE_SUFFIXES if suffix in sample.members), "")
        file_name = f"{sample.key}.{suffix}" if suffix else ""
        try:
            if sample.repeated:
                raise UnusableSampleError("duplicate_member", f"several members are {sample.key}.{sample.repeated}")
            if not suffix:
                raise UnusableSampleError("missing_picture", f"no {_dotted(PICTURE_SUFFIXES)} among {_has(sample)}")
            record = _json_of(sample)
            captions = self._captions(sample, record)
            group, split = (text_of(self._value(record, key)) for key in (self.group_key, self.split_key))
        except UnusableSampleError as fault:
            return SourceRow(where, reason=fault.reason, detail=str(fault), file_name=file_name)
        return SourceRow(
            where,
            sample.members[suffix],
            captions=captions,
            group=group,
            split=split_of(split, where),
            file_name=file_name,
        )

    def _captions(self, sample: Sample, record: Mapping[str, Any]) -> tuple[str, ...]:
        """Captions of the .txt or of the .json. Raises UnusableSampleError if there are none."""
        if "txt" in sample.members and not self.caption_keys:
            texts: list[object] = [" ".join(_decoded(sample, "txt").split())]
        elif "txt" not in sample.members and "json" not in sample.members:
            raise UnusableSampleError("missing_text", f"no .txt and no .json among {_has(sample)}")
        else:
            keys = self.caption_keys or [key for key in CAPTION_KEYS if key in record][:1] or CAPTION_KEYS[:1]
            values = [self._value(record, key) for key in keys]
            texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        captions = tuple(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))
        if not captions:
            raise UnusableSampleError("no_caption", f"the text of {_has(sample)} is empty, or none")
        return captions

    def _value(self, record: Mapping[str, Any], key: str) -> Any:
        """What the .json says; "" for a key that is not asked for. Raises UnusableSampleError if it is not there."""
        if key and key not in record:
            raise UnusableSampleError(
                "missing_key", f"the .json has no {key!r}; it has {listed(record)}.{near(key, record)}"
            )
        return record[key] if key else ""

    @cached_property
    def _shards(self) -> list[FileInfo]:
        infos = [*self.files.list()]
        shards = [info for info in infos if info.name.lower().endswith(SHARD_SUFFIXES)]
        if not shards:
            raise SourceError(
                f"{self.files.uri} has no {' or '.join(SHARD_SUFFIXES)}; it has {listed(info.name for info in infos)}. "
                "Set source.webdataset.path to the folder of the shards."
            )
        return shards

    @cached_property
    def _total(self) -> int:
        return sum(1 for shard in self._shards for _ in read_samples(self.files, shard.name, with_data=False))


def read_samples(files: Files, shard: str, *, with_data: bool = True) -> Iterator[Sample]:
    """Stream one shard's samples; without their data where only their number is asked for."""
    sample: Sample | None = None
    for name, data in read_members(files, shard, with_data=with_data):
        match = MEMBER_NAME.match(name)
        if not match or META.match(name):
            continue
        key, suffix = match[1], match[2].lower()
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(shard, key)
        if suffix in sample.members:
            sample.repeated = suffix
        sample.members[suffix] = data
    if sample is not None:
        yield sample


def read_members(files: Files, shard: str, *, with_data: bool) -> Iterator[tuple[str, bytes]]:
    """Names and data of a shard's plain files. Raises SourceError if the shard is no tar, or not a whole one.

    Data are read of pictures and texts only, and never more than one byte beyond what a picture may have.
    """
    count = 0
    try:
        with files.open(shard) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for member in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or else all headers stay in memory
                count += 1
                if member.isreg():
                    wanted = with_data and member.name.lower().rpartition(".")[2] in READ_SUFFIXES
                    content = archive.extractfile(member) if wanted else None
                    yield member.name, content.read(DEFAULT_LIMITS.max_bytes + 1) if content else b""
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        after = f"it breaks off after {count:,} members" if count else "it does not begin like one"
        raise SourceError(
            f"{files.uri}/{shard} is no whole tar archive: {after} ({error}). Fetch or write the shard again."
        ) from error


def _json_of(sample: Sample) -> Mapping[str, Any]:
    """The .json, or nothing where there is none. Raises UnusableSampleError if it is no object."""
    if "json" not in sample.members:
        return {}
    try:
        value = json.loads(_decoded(sample, "json"))
    except (ValueError, RecursionError) as error:
        raise UnusableSampleError("malformed_json", f"{sample.key}.json: {error}") from error
    if not isinstance(value, dict):
        raise UnusableSampleError("malformed_json", f"{sample.key}.json is no object but {type(value).__name__}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _decoded(sample: Sample, suffix: str) -> str:
    try:
        return sample.members[suffix].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"{sample.key}.{suffix}: {error.reason} at byte {error.start}"
        raise UnusableSampleError("not_utf8", detail) from error


def _has(sample: Sample) -> str:
    return f"{_dotted(sample.members)} of {sample.key}"


def _dotted(suffixes: Iterable[str]) -> str:
    return ", ".join(f".{suffix}" for suffix in suffixes)
