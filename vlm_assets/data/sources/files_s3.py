"""Files below `s3://bucket/prefix`. Credentials, region and endpoint come from boto3's own AWS_* variables."""

import hashlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import urlparse

from vlm_assets.data.sources.files import READERS, FileInfo, inner_name, is_hidden, outside
from vlm_assets.errors import SourceError, UnreadableFileError
from vlm_assets.s3_errors import s3_error_text

BUFFER_BYTES = 1 << 20
ATTEMPTS = 3  # at one position of a stream, before the connection counts as lost
TIMEOUT_SECONDS = 20
NO_OBJECT = {"NoSuchKey", "404", "NotFound"}


class S3Files:
    """Objects whose key starts with the prefix."""

    def __init__(self, uri: str, setting: str) -> None:
        import boto3
        from botocore.config import Config

        parts = urlparse(uri)
        if not parts.netloc:
            raise SourceError(f"{setting} is {uri!r}; it takes s3://bucket/prefix.")
        self.setting = setting
        self.bucket = parts.netloc
        self.prefix = f"{parts.path.strip('/')}/" if parts.path.strip("/") else ""
        self.uri = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        config = Config(
            connect_timeout=TIMEOUT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
            retries={"mode": "standard", "max_attempts": ATTEMPTS},
            max_pool_connections=2 * READERS,
        )
        session = boto3.Session()  # the shared one keeps the credentials that it saw first
        try:
            self.client: Any = session.client("s3", config=config)  # pyright: ignore[reportUnknownMemberType]
        except ValueError as error:  # botocore's only word for an address that is none
            raise SourceError(f"The S3 client cannot be set up: {error}. Check AWS_ENDPOINT_URL.") from error

    def list(self, prefix: str = "") -> Iterator[FileInfo]:
        """See Files; S3 lists by the key's UTF-8 bytes, which sorts as Python sorts strings."""
        empty = True
        for entry in self._entries(self.prefix + prefix):
            name = entry["Key"].removeprefix(self.prefix)
            if name.endswith("/") or inner_name(name) != name or is_hidden(name):  # "a/" stands for an empty folder
                continue
            empty = False
            yield FileInfo(name, int(entry["Size"]), str(entry["ETag"]).strip('"'))
        if empty and not prefix:
            raise SourceError(f"{self.uri} holds no objects. Upload the files there, or change {self.setting}.")

    def read(self, name: str) -> bytes:
        """See Files."""
        with self.open(name) as file:
            return file.read()

    def exists(self, name: str) -> bool:
        """See Files; one request."""
        key = self._key(name)
        if key is None:
            return False
        try:
            self.client.head_object(Bucket=self.bucket, Key=key)
        except Exception as error:
            if _code(error) in NO_OBJECT:
                return False
            raise self.error(error, key) from error
        return True

    def open(self, name: str) -> BinaryIO:
        """See Files; a connection that breaks is taken up again where it broke."""
        key = self._key(name)
        if key is None:
            raise outside(name, self.uri)
        return cast("BinaryIO", io.BufferedReader(ObjectStream(self, key), BUFFER_BYTES))

    def digest(self, info: FileInfo) -> str:
        """See Files."""
        return hashlib.sha256(f"{info.tag} {info.size_bytes}".encode()).hexdigest()

    def error(self, error: Exception, key: str = "") -> SourceError:
        """What went wrong in one sentence: with the object `key`, or with the listing.

        Only a missing object is a row to put aside. One that is refused (denied, archived) is there, with its ETag in
        the fingerprint: put aside, it would stay out of the data set of this version after access was given.
        """
        where = f"s3://{self.bucket}/{key or self.prefix}"
        code = _code(error)
        if key and code in NO_OBJECT:
            return UnreadableFileError(f"There is no object {where}. Check {self.setting}.")
        endpoint = self.client.meta.endpoint_url
        return SourceError(s3_error_text(error, "read" if key else "list", where, endpoint, self.setting))

    def _key(self, name: str) -> str | None:
        inner = inner_name(name)
        return None if inner is None else self.prefix + inner

    def _entries(self, prefix: str) -> Iterator[dict[str, Any]]:
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                yield from page.get("Contents", [])
        except SourceError:
            raise
        except Exception as error:
            raise self.error(error) from error


class ObjectStream(io.RawIOBase):
    """One object as a seekable stream: one request while it is read forward, a new one from wherever a seek leads."""

    def __init__(self, files: S3Files, key: str) -> None:
        super().__init__()
        self.files, self.key = files, key
        self.position = 0
        self.body: Any = None
        self._request()  # now, so that a missing object is an error of opening it

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; the next read asks for what follows."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size_bytes}[whence]
        if start + offset != self.position:
            self._drop()
        self.position = start + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as the object goes."""
        if self.position >= self.size_bytes:
            return 0
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def close(self) -> None:
        """Give the connection back."""
        self._drop()
        super().close()

    def _read(self, size_bytes: int) -> bytes:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return (self.body or self._request()).read(size_bytes)
            except SourceError:
                raise
            except Exception as error:  # the connection broke
                self._drop()
                if attempt == ATTEMPTS:
                    raise self.files.error(error, self.key) from error
        raise AssertionError("the last attempt returns or raises")

    def _request(self) -> Any:
        span = {"Range": f"bytes={self.position}-"} if self.position else {}
        try:
            answer = self.files.client.get_object(Bucket=self.files.bucket, Key=self.key, **span)
        except Exception as error:
            raise self.files.error(error, self.key) from error
        if not self.position:
            self.size_bytes = int(answer["ContentLength"])
        self.body = answer["Body"]
        return self.body

    def _drop(self) -> None:
        if self.body is not None:
            self.body.close()
            self.body = None


def _code(error: Exception) -> str:
    """The service's error code; "" where the error is not the service's answer."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
