"""Samples of a tar shard: its members, grouped by name as the webdataset library does; every damage is an error.

https://github.com/webdataset/webdataset. Members are read in the order of the shard and never unpacked: a name is only
a label, whatever it says ("/etc/passwd", "../../x"); links and devices are passed over.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from tarfile import EOFHeaderError, HeaderError, ReadError  # pyright: ignore[reportAttributeAccessIssue]
from typing import BinaryIO, Self, cast

from vlm_assets.data.sources.files import Files
from vlm_assets.errors import SourceError
from vlm_serving.images import DEFAULT_LIMITS

PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
READ_SUFFIXES = (*PICTURE_SUFFIXES, "txt", "json")
MEMBER_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # split at the first dot after the folder
GZIP_MAGIC = b"\x1f\x8b"
DRAIN_BYTES = 1 << 20
META = re.compile(r"__[^/]*__($|/)")  # "__index__" and the like


@dataclass
class Sample:
    """The members of one key, in the order of the shard."""

    shard: str
    key: str
    members: dict[str, bytes] = field(default_factory=dict[str, bytes])  # by suffix, in lower case
    repeated: str = ""  # a suffix that is there twice

    def picture_suffixes(self) -> list[str]:
        """Its pictures; the first is the one that counts."""
        return [suffix for suffix in PICTURE_SUFFIXES if suffix in self.members]


class StrictTarInfo(tarfile.TarInfo):
    """A broken or missing header is an error wherever it stands; tarfile takes any but the first for the end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """Read the next header. EOFHeaderError is the end as it should be: a block of zeros."""
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            raise ReadError(str(error)) from error


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
        with (
            files.open(shard) as file,
            _decompressed(file) as plain,
            tarfile.open(fileobj=plain, mode="r|", tarinfo=StrictTarInfo) as archive,
        ):
            for member in archive:
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # or else all headers stay in memory
                count += 1
                if member.isreg():
                    wanted = with_data and member.name.lower().rpartition(".")[2] in READ_SUFFIXES
                    content = archive.extractfile(member) if wanted else None
                    yield member.name, content.read(DEFAULT_LIMITS.max_bytes + 1) if content else b""
            while plain.read(DRAIN_BYTES):  # gzip compares its checksum at the very end
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        after = f"it breaks off after {count:,} members" if count else "nothing of it can be read"
        raise SourceError(
            f"{files.uri}/{shard} is no whole tar archive: {after} ({error}). Fetch or write the shard again."
        ) from error


def _decompressed(file: BinaryIO) -> BinaryIO:
    """The tar in a file that may be compressed by gzip, whatever it is called."""
    magic = file.read(len(GZIP_MAGIC))
    file.seek(0)
    return cast("BinaryIO", gzip.GzipFile(fileobj=file)) if magic == GZIP_MAGIC else file
