"""WebDataset: tar shards in which the files of one sample share a name and stand side by side.

`000042.jpg`, `000042.txt` and `000042.json` are one sample with the key `000042`; a name is split at the first dot
after its folder. Shards of img2dataset are read as they are.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from vlm_assets.data.sources.base import SKIPPED, Attribution, Log, Source, SourceRow, UnusableRowError, silent
from vlm_assets.data.sources.columns import SPLIT_NAMES, split_of, text_of
from vlm_assets.data.sources.documents import listed, near
from vlm_assets.data.sources.files import FileInfo, fingerprint
from vlm_assets.data.sources.shard_files import split_of_file
from vlm_assets.data.sources.shard_paths import ShardPaths
from vlm_assets.data.sources.tar_samples import PICTURE_SUFFIXES, Sample, read_samples
from vlm_serving.progress import Progress

CAPTION_KEYS = ("caption", "captions", "text")
ONE_PICTURE = "a sample is one picture with its text"


class WebDatasetConfig(dg.Config):
    """Tar shards as webdataset and img2dataset write them: .jpg, .png or .webp beside .txt or .json."""

    kind: Literal["webdataset"] = "webdataset"
    path: str = Field(
        min_length=1,
        description="folder or s3://bucket/prefix with .tar, .tar.gz or .tgz shards, one shard, or a list in braces: "
        "shards/{00000..00099}.tar",
    )
    caption_keys: list[str] = Field(
        default=[], description="keys of .json with the caption(s); empty = the .txt, or else caption, captions or text"
    )
    group_key: str = Field(default="", description="key of .json whose equal values stay in one split; empty = none")
    split_key: str = Field(default="", description="key of .json with train, val or test; empty = by the shards' names")
    given_splits: bool = Field(
        default=True,
        description="honour train, val and test in the names of shards and their folders, where they tell several "
        "apart: cc-train-00000.tar, test/00000.tar",
    )
    title: str = Field(default="", description="what the set is called in the model card; empty = the folder's name")
    licence: str = Field(default="", description="what is allowed with the pictures; travels to the model card")

    def open(self) -> Source:
        """The source that this describes."""
        return WebDatasetSource(self, ShardPaths(self.path, "source.webdataset.path"))


class WebDatasetSource:
    """Samples of all shards, shard by shard in order of their names. One sample is in memory at a time."""

    _total: int | None = None

    def __init__(self, config: WebDatasetConfig, shards: ShardPaths) -> None:
        self.config, self.paths = config, shards
        self.files = shards.files
        title = config.title or self.files.uri.rpartition("/")[2]
        self.attribution = Attribution(title, f"Pictures and captions of {title}", config.licence)

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of the shards' content and of the keys read."""
        keys = (*self.config.caption_keys, "", self.config.group_key, self.config.split_key)
        return fingerprint(self.files, self._shards, *keys, log=log)

    def total(self, log: Log = silent) -> int:
        """Number of samples, and of pictures beside a sample's first; tar has no index, so the shards are read."""
        if self._total is None:
            self._total = self._counted(log)
        return self._total

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield one row per sample, and one for each picture beside its first."""
        for shard in self._shards:
            for sample in read_samples(self.files, shard.name):
                yield self._row(sample)
                first, *others = sample.picture_suffixes() or [""]
                for suffix in others:
                    reason = f"{SKIPPED}.{suffix} beside .{first}"
                    name = f"{sample.key}.{suffix}"
                    yield SourceRow(f"{shard.name} {name}", reason=reason, detail=ONE_PICTURE, file_name=name)

    def _row(self, sample: Sample) -> SourceRow:
        where = f"{sample.shard} {sample.key}"
        suffix = next(iter(sample.picture_suffixes()), "")
        file_name = f"{sample.key}.{suffix}" if suffix else ""
        try:
            if sample.repeated:
                raise UnusableRowError("duplicate_member", f"several members are {sample.key}.{sample.repeated}")
            if not suffix:
                raise UnusableRowError("missing_picture", f"no {_dotted(PICTURE_SUFFIXES)} among {_has(sample)}")
            record = _json_of(sample)
            captions = self._captions(sample, record)
            group = text_of(self._value(record, self.config.group_key))
            split = split_of(self._value(record, self.config.split_key)) or self._splits.get(sample.shard, "")
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
        if "txt" in sample.members and not self.config.caption_keys:
            texts: list[object] = [" ".join(_decoded(sample, "txt").split())]
        elif "txt" not in sample.members and "json" not in sample.members:
            raise UnusableRowError("missing_text", f"no .txt and no .json among {_has(sample)}")
        else:
            keys = self.config.caption_keys or [key for key in CAPTION_KEYS if key in record][:1] or CAPTION_KEYS[:1]
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
        return self.paths.find()

    @cached_property
    def _splits(self) -> Mapping[str, str]:
        """By shard, the split that its name tells. All shards of one split prescribe none: who would test?"""
        told = {info.name: SPLIT_NAMES.get(split_of_file(info.name).lower(), "") for info in self._shards}
        several = len({split for split in told.values() if split}) > 1
        return told if several and self.config.given_splits else {}

    def _counted(self, log: Log) -> int:
        progress = Progress("count samples", len(self._shards), log, "shards")
        count = 0
        for shard in self._shards:
            samples = read_samples(self.files, shard.name, with_data=False)
            count += sum(max(len(sample.picture_suffixes()), 1) for sample in samples)
            progress.advance(note=f"{count:,} samples")
        progress.done()
        return count


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
