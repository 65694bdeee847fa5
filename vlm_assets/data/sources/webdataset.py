"""WebDataset: tar shards in which the files of one sample share a name and stand side by side.

`000042.jpg`, `000042.txt` and `000042.json` are one sample with the key `000042`; a name is split at the first dot
after its folder. Shards of img2dataset are read as they are.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from vlm_assets.data.sources.base import Attribution, Log, Source, SourceRow, UnusableRowError, silent
from vlm_assets.data.sources.columns import split_of, text_of
from vlm_assets.data.sources.documents import listed, near
from vlm_assets.data.sources.files import FileInfo, Files, fingerprint, open_files
from vlm_assets.data.sources.tar_samples import PICTURE_SUFFIXES, Sample, read_samples
from vlm_assets.errors import SourceError

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz")
CAPTION_KEYS = ("caption", "captions", "text")


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


class WebDatasetSource:
    """Samples of all shards, shard by shard in order of their names. One sample is in memory at a time."""

    def __init__(
        self, files: Files, caption_keys: Sequence[str], group_key: str, split_key: str, attribution: Attribution
    ) -> None:
        self.files = files
        self.caption_keys = tuple(caption_keys)
        self.group_key, self.split_key = group_key, split_key
        self.attribution = attribution

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of the shards' content and of the keys read."""
        return fingerprint(self.files, self._shards, *self.caption_keys, "", self.group_key, self.split_key, log=log)

    def total(self, log: Log = silent) -> int:
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
                raise UnusableRowError("duplicate_member", f"several members are {sample.key}.{sample.repeated}")
            if not suffix:
                raise UnusableRowError("missing_picture", f"no {_dotted(PICTURE_SUFFIXES)} among {_has(sample)}")
            record = _json_of(sample)
            captions = self._captions(sample, record)
            group = text_of(self._value(record, self.group_key))
            split = split_of(self._value(record, self.split_key))
        except UnusableRowError as fault:
            return SourceRow(where, reason=fault.reason, detail=str(fault), file_name=file_name)
        return SourceRow(
            where,
            sample.members[suffix],
            captions=captions,
            group=group,
            split=split,
            file_name=file_name,
        )

    def _captions(self, sample: Sample, record: Mapping[str, Any]) -> tuple[str, ...]:
        """Captions of the .txt or of the .json. Raises UnusableRowError if there are none."""
        if "txt" in sample.members and not self.caption_keys:
            texts: list[object] = [" ".join(_decoded(sample, "txt").split())]
        elif "txt" not in sample.members and "json" not in sample.members:
            raise UnusableRowError("missing_text", f"no .txt and no .json among {_has(sample)}")
        else:
            keys = self.caption_keys or [key for key in CAPTION_KEYS if key in record][:1] or CAPTION_KEYS[:1]
            values = [self._value(record, key) for key in keys]
            texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
        captions = tuple(dict.fromkeys(text.strip() for text in texts if isinstance(text, str) and text.strip()))
        if not captions:
            raise UnusableRowError("no_caption", f"the text of {_has(sample)} is empty, or none")
        return captions

    def _value(self, record: Mapping[str, Any], key: str) -> Any:
        """What the .json says; "" for a key that is not asked for. Raises UnusableRowError if it is not there."""
        if key and key not in record:
            raise UnusableRowError(
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


def _json_of(sample: Sample) -> Mapping[str, Any]:
    """The .json, or nothing where there is none. Raises UnusableRowError if it is no object."""
    if "json" not in sample.members:
        return {}
    try:
        value = json.loads(_decoded(sample, "json"))
    except (ValueError, RecursionError) as error:
        raise UnusableRowError("malformed_json", f"{sample.key}.json: {error}") from error
    if not isinstance(value, dict):
        raise UnusableRowError("malformed_json", f"{sample.key}.json is no object but {type(value).__name__}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _decoded(sample: Sample, suffix: str) -> str:
    try:
        return sample.members[suffix].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        detail = f"{sample.key}.{suffix}: {error.reason} at byte {error.start}"
        raise UnusableRowError("not_utf8", detail) from error


def _has(sample: Sample) -> str:
    return f"{_dotted(sample.members)} of {sample.key}"


def _dotted(suffixes: Iterable[str]) -> str:
    return ", ".join(f".{suffix}" for suffix in suffixes)
