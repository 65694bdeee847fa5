"""Row groups of shard files, on disk or on S3. Of an S3 object only the row groups asked for are fetched, and cached.

The cache is a directory that never grows beyond its limit: the blocks used longest ago go first. Several processes may
share it: they write one after the other.
"""

# pyarrow ships no types.
# pyright: reportUnknownParameterType=false

import contextlib
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from vlm_assets.errors import StoreError
from vlm_assets.locks import locked
from vlm_assets.s3_errors import s3_error_text

FOOTER_BYTES = 64 * 1024  # as much of an object's end as the first request takes
FOOTER_READERS = 16
FRESH = ".fresh"  # ends the name of a block that is being written
TRAILER_BYTES = 8  # Parquet: length of the footer, "PAR1"


class BlockCache:
    """Bytes by key below `directory`, at most `max_bytes` of them on disk."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory, self._max_bytes = directory, max_bytes

    def get(self, key: str) -> bytes | None:
        """The bytes, which now count as the last used; or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep the bytes, unless they alone are more than the limit; others make room first."""
        if len(data) > self._max_bytes:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with locked(self._directory / ".lock"):
                self._make_room(len(data))
                self._write(self._path(key), data)
        except OSError as error:
            raise StoreError(
                f"Cannot write the cache of shards in {self._directory}: {error}. Make room there, or give it another "
                "directory."
            ) from error

    def size_bytes(self) -> int:
        """What is on disk now."""
        return sum(size for _, size, _ in self._files())

    def _write(self, path: Path, data: bytes) -> None:
        fresh = path.with_name(path.name + FRESH)
        try:
            fresh.write_bytes(data)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)

    def _make_room(self, wanted_bytes: int) -> None:
        for left in self._directory.glob(f"*{FRESH}"):
            left.unlink(missing_ok=True)  # only who holds the lock writes: it belongs to a process that was killed
        files = self._files()
        total = sum(size for _, size, _ in files) + wanted_bytes
        for _, size, path in sorted(files):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)  # whoever reads it now has it open
            total -= size

    def _files(self) -> list[tuple[int, int, Path]]:
        found: list[tuple[int, int, Path]] = []
        for path in self._directory.glob("*.block*"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
        return found

    def _path(self, key: str) -> Path:
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}.block"


@dataclass(frozen=True)
class ShardFile:
    """A shard with its footer. `tag` changes when an object on S3 does."""

    uri: str
    metadata: Any  # pq.FileMetaData
    tag: str = ""

    def rows(self) -> list[int]:
        """Rows of each row group."""
        return [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]

    def span(self, group: int) -> tuple[int, int]:
        """First byte of a row group, and the one after its last."""
        parts = self.metadata.row_group(group)
        columns = [parts.column(number) for number in range(parts.num_columns)]
        starts = [min(x for x in (c.dictionary_page_offset, c.data_page_offset) if x is not None) for c in columns]
        ends = [start + c.total_compressed_size for start, c in zip(starts, columns, strict=True)]
        return min(starts), max(ends)


class ShardBlocks:
    """Opens shards by path or s3:// address, and reads their row groups. Safe to use from several threads."""

    def __init__(self, shards: Sequence[str | Path], cache: BlockCache | None = None) -> None:
        self._cache = cache
        self._client: Any = None
        if any(str(shard).startswith("s3://") for shard in shards):
            import boto3

            self._client = boto3.Session().client("s3")  # pyright: ignore[reportUnknownMemberType]
        with ThreadPoolExecutor(FOOTER_READERS) as pool:
            self.files = list(pool.map(self._open, map(str, shards)))

    def read(self, file: ShardFile, group: int) -> pa.Table:
        """One row group. Raises StoreError."""
        if not file.uri.startswith("s3://"):
            try:
                with pq.ParquetFile(file.uri, metadata=file.metadata, memory_map=True) as parquet:
                    return parquet.read_row_group(group, use_threads=False)
            except (OSError, pa.ArrowInvalid) as error:
                raise StoreError(f"Cannot read row group {group} of {file.uri}: {error}.") from error
        start, end = file.span(group)
        part = pa.PythonFile(_Part(self._block(file, start, end), start, end), "r")
        return pq.ParquetFile(part, metadata=file.metadata).read_row_group(group, use_threads=False)

    def _block(self, file: ShardFile, start: int, end: int) -> bytes:
        key = f"{file.uri} {file.tag} {start}-{end}"
        data = self._cache.get(key) if self._cache else None
        if data is None or len(data) != end - start:
            data = self._fetch(file.uri, f"bytes={start}-{end - 1}", file.tag)[0]
            if self._cache:
                self._cache.put(key, data)
        return data

    def _open(self, uri: str) -> ShardFile:
        if not uri.startswith("s3://"):
            try:
                return ShardFile(uri, pq.read_metadata(uri))
            except (OSError, pa.ArrowInvalid) as error:
                raise StoreError(f"{uri} is not a shard that can be read: {error}.") from error
        tail, tag, size = self._fetch(uri, f"bytes=-{FOOTER_BYTES}")
        footer_bytes = int.from_bytes(tail[-TRAILER_BYTES:-4], "little") + TRAILER_BYTES
        if tail[-4:] != b"PAR1" or footer_bytes > size:
            raise StoreError(f"{uri} is not a shard that can be read: it does not end as a Parquet file does.")
        if footer_bytes > len(tail):
            tail, _, _ = self._fetch(uri, f"bytes=-{footer_bytes}", tag)
        part = pa.PythonFile(_Part(tail, size - len(tail), size), "r")
        return ShardFile(uri, pq.read_metadata(part), tag)

    def _fetch(self, uri: str, span: str, tag: str = "") -> tuple[bytes, str, int]:
        """Bytes of an object, its tag, its size; with `tag`, only if it is still the same object."""
        parts = urlsplit(uri)
        same = {"IfMatch": tag} if tag else {}
        try:
            answer = self._client.get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"), Range=span, **same)
            data = answer["Body"].read()
        except Exception as error:
            code = (getattr(error, "response", None) or {}).get("Error", {}).get("Code", "")
            if code in ("PreconditionFailed", "412"):
                raise _replaced(uri) from error
            if code in ("NoSuchKey", "404"):
                raise StoreError(
                    f"There is no shard {uri}. Check its address, and that the shards were pushed."
                ) from error
            text = s3_error_text(error, "read", uri, self._client.meta.endpoint_url, "the shards' address")
            raise StoreError(text) from error
        if tag and answer["ETag"] != tag:  # not every server heeds If-Match
            raise _replaced(uri)
        return data, answer["ETag"], int(answer["ContentRange"].rpartition("/")[2])


def _replaced(uri: str) -> StoreError:
    return StoreError(f"{uri} was replaced while it was read. Start again on what is there now.")


class _Part(io.RawIOBase):
    """The bytes [start, end) of a file that claims to be whole: pyarrow asks for no others."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data, self._start, self._end, self._at = data, start, end, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        first = self._at - self._start
        last = len(self._data) if size < 0 else first + size
        self._at = self._start + last
        return self._data[first:last]
