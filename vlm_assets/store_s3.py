"""The store on S3. Files first, the manifest last and only if absent: a reader sees a whole artifact or none.

The files of an artifact lie in `<name>/<version>/<digest of the manifest>/`. Two writers of one version whose bytes
differ therefore never write the same object, and a writer that was killed goes on where it stopped.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from vlm_assets.copies import Copies
from vlm_assets.errors import ConfigError, StoreError
from vlm_assets.manifest import MANIFEST
from vlm_assets.s3_errors import s3_error_text

CACHE_ENV, CACHE_LIMIT_ENV = "VLM_CACHE", "VLM_CACHE_GB"
DEFAULT_CACHE_GB = 50.0
CONTENT_HEX_DIGITS = 16
ABANDONED_AFTER = timedelta(days=1)  # an upload in parts that has not ended by then never will
CONFLICT_ATTEMPTS = 5  # 409: another conditional put of the same key is under way, and may yet fail

logger = logging.getLogger(__name__)


class S3Backend:
    """Artifacts below `s3://bucket/prefix`. Credentials, region and endpoint come from the AWS_* variables."""

    disk_setting = CACHE_ENV

    def __init__(self, uri: str) -> None:
        from dagster_aws.s3 import S3Resource

        parts = urlparse(uri)
        if not parts.netloc:
            raise ConfigError(f"VLM_STORE is {uri!r}; it takes a local path or s3://bucket/prefix.")
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        try:
            self.client: Any = S3Resource().get_client()
        except ValueError as error:  # botocore's only word for an address that is none
            raise ConfigError(f"The S3 client cannot be set up: {error}. Check AWS_ENDPOINT_URL.") from error
        default = Path(tempfile.gettempdir()) / f"vlm-cache-{os.getuid()}"
        cache = Path(os.environ.get(CACHE_ENV) or default).expanduser().absolute()
        self.housekeeping = cache / self.bucket / self.prefix
        self.copies = Copies(self.housekeeping / "copies", _cache_limit_bytes(), CACHE_ENV)

    def read_manifest(self, name: str, version: str) -> bytes | None:
        """See Backend."""
        return self._get(f"{name}/{version}/{MANIFEST}")

    def address(self, name: str, version: str, manifest: bytes) -> str:
        """See Backend."""
        return f"{self.uri}/{name}/{version}/{_content(manifest)}"

    def publish(self, built: Path, name: str, version: str) -> bool:
        """Upload what is not there yet, then put the manifest with `If-None-Match: *`."""
        try:
            manifest = (built / MANIFEST).read_bytes()
            for path, entry in json.loads(manifest)["files"].items():
                self._upload(built / path, f"{name}/{version}/{_content(manifest)}/{path}", entry)
            won = self._put(f"{name}/{version}/{MANIFEST}", manifest, only_if_absent=True)
        except (StoreError, FileNotFoundError):
            if self._is_published(name, version):  # and whoever did it has cleared away what is ours
                return False
            raise
        self._sweep(name, version)
        return won

    def local_directory(self, name: str, version: str, manifest: bytes) -> Path:
        """A copy in the cache, fetched once and checked."""

        def fetch(fresh: Path) -> None:
            for path, entry in json.loads(manifest)["files"].items():
                self._download(f"{name}/{version}/{_content(manifest)}/{path}", fresh / path, entry)
            (fresh / MANIFEST).write_bytes(manifest)

        return self.copies.keep(f"{name}-{version}", fetch)

    @contextmanager
    def local_file(self, name: str, version: str, manifest: bytes, path: str) -> Iterator[Path]:
        """See Backend; the copy of the whole artifact serves, where there is one."""
        whole, entry = f"{name}-{version}", json.loads(manifest)["files"][path]
        if self.copies.has(whole):
            yield self.local_directory(name, version, manifest) / path
            return

        def fetch(fresh: Path) -> None:
            self._download(f"{name}/{version}/{_content(manifest)}/{path}", fresh / path, entry)

        with self.copies.use(f"{whole}-{entry['sha256'][:CONTENT_HEX_DIGITS]}", fetch) as copy:
            yield copy / path

    def read_text(self, key: str) -> str | None:
        """See Backend."""
        data = self._get(key)
        return None if data is None else data.decode()

    def write_text(self, key: str, text: str, *, only_if_absent: bool = False) -> bool:
        """See Backend."""
        return self._put(key, text.encode(), only_if_absent=only_if_absent)

    def list_keys(self, prefix: str) -> list[str]:
        """See Backend."""
        base = self._key(prefix.rstrip("/") + "/")
        with self._asking("list", base):
            names = [key.removeprefix(base) for key in self._list(base)]
        return sorted(name for name in names if "/" not in name)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _asking(self, action: str, key: str) -> Iterator[None]:
        """Turn what the S3 client raises into one StoreError that says what to do."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            text = s3_error_text(
                error, action, f"s3://{self.bucket}/{key}", self.client.meta.endpoint_url, f"VLM_STORE ({self.uri})"
            )
            raise StoreError(text) from error

    def _get(self, key: str) -> bytes | None:
        with self._asking("read", self._key(key)):
            try:
                return self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return None

    def _put(self, key: str, data: bytes, *, only_if_absent: bool) -> bool:
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        for attempt in range(CONFLICT_ATTEMPTS):
            with self._asking("write", self._key(key)):
                try:
                    self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **condition)
                except ClientError as error:
                    answer = error.response["ResponseMetadata"]
                    if answer["HTTPStatusCode"] == 412:
                        # the first try of a request that was sent again may have been ours
                        return bool(answer.get("RetryAttempts")) and self._get(key) == data
                    if answer["HTTPStatusCode"] != 409 or attempt + 1 == CONFLICT_ATTEMPTS:
                        raise
                    continue
            return True
        return False

    def _upload(self, file: Path, key: str, entry: Mapping[str, Any]) -> None:
        """In parts and with retries, by boto3; an object that is there with these very bytes is left alone."""
        with self._asking("write", self._key(key)):
            if not self._holds(self._key(key), entry):
                metadata = {"Metadata": {"sha256": entry["sha256"]}}
                self.client.upload_file(str(file), self.bucket, self._key(key), ExtraArgs=metadata)

    def _holds(self, key: str, entry: Mapping[str, Any]) -> bool:
        from botocore.exceptions import ClientError

        try:
            head = self.client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            # 403 is also the answer to a missing object when the right to list is missing
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
                return False
            raise
        return head["ContentLength"] == entry["bytes"] and head["Metadata"].get("sha256") == entry["sha256"]

    def _download(self, key: str, file: Path, entry: Mapping[str, Any]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._asking("read", self._key(key)):
            self.client.download_file(self.bucket, self._key(key), str(file))
        with file.open("rb") as copy:
            if hashlib.file_digest(copy, "sha256").hexdigest() != entry["sha256"]:
                raise StoreError(
                    f"s3://{self.bucket}/{self._key(key)} does not have the bytes that the manifest names: it was "
                    f"altered. Remove {self.uri}/{key.split('/')[0]}/{key.split('/')[1]} and materialize again."
                )

    def _is_published(self, name: str, version: str) -> bool:
        try:
            return self.read_manifest(name, version) is not None
        except StoreError:
            return False

    def _sweep(self, name: str, version: str) -> None:
        """Remove what killed and beaten writers left: objects of this version beside the winner's, uploads in parts.

        Whatever cannot be removed (a policy without the right to delete) costs room and nothing else.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        manifest = self.read_manifest(name, version)
        if manifest is None:
            return
        base = self._key(f"{name}/{version}/")
        kept = (base + MANIFEST, f"{base}{_content(manifest)}/")
        try:
            for key in self._list(base):
                if not key.startswith(kept):
                    self.client.delete_object(Bucket=self.bucket, Key=key)
            long_ago = datetime.now(UTC) - ABANDONED_AFTER
            for key, upload, begun in self._uploads_in_parts():
                if key.startswith(base) or begun < long_ago:
                    self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
        except (BotoCoreError, ClientError) as error:
            logger.warning("leavings below s3://%s/%s stay: %s", self.bucket, base, error)

    def _list(self, base: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=base)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def _uploads_in_parts(self) -> list[tuple[str, str, datetime]]:
        """Key, id and begin of every upload below the prefix that has not ended."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self._key(""))
        uploads = [upload for page in pages for upload in page.get("Uploads", [])]
        return [(upload["Key"], upload["UploadId"], upload["Initiated"]) for upload in uploads]


def _cache_limit_bytes() -> int:
    text = os.environ.get(CACHE_LIMIT_ENV) or str(DEFAULT_CACHE_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < float("inf"):
        raise ConfigError(f"{CACHE_LIMIT_ENV} is {text!r}; it takes gigabytes, such as {DEFAULT_CACHE_GB:g}.")
    return int(gigabytes * 1e9)


def _content(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:CONTENT_HEX_DIGITS]
