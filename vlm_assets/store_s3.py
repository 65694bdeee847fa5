"""The store on S3. Files first, the manifest last and only if absent: a reader sees a whole artifact or none."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from vlm_assets.errors import StoreError
from vlm_assets.store import MANIFEST

CACHE_ENV = "VLM_CACHE"


class S3Backend:
    """Artifacts below `s3://bucket/prefix`. Credentials and endpoint come from the AWS_* variables."""

    def __init__(self, uri: str) -> None:
        import boto3

        parts = urlparse(uri)
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        self.client: Any = boto3.client("s3")  # pyright: ignore[reportUnknownMemberType]
        default = Path(tempfile.gettempdir()) / f"vlm-cache-{os.getuid()}"
        self.housekeeping = Path(os.environ.get(CACHE_ENV, default)) / self.bucket / self.prefix

    def read_manifest(self, name: str, version: str) -> bytes | None:
        """See Backend."""
        return self._get(f"{name}/{version}/{MANIFEST}")

    def publish(self, staged: Path, name: str, version: str) -> bool:
        """Upload all files, then put the manifest with `If-None-Match: *`."""
        files = [file for file in sorted(staged.rglob("*")) if file.is_file() and file.name != MANIFEST]
        for file in files:
            key = self._key(f"{name}/{version}/{file.relative_to(staged).as_posix()}")
            try:
                self.client.upload_file(str(file), self.bucket, key)
            except Exception as error:
                raise StoreError(
                    f"Cannot write s3://{self.bucket}/{key}: {error}. Check AWS_* and the bucket."
                ) from error
        return self._put(f"{name}/{version}/{MANIFEST}", (staged / MANIFEST).read_bytes(), only_if_absent=True)

    def local_directory(self, name: str, version: str) -> Path:
        """A copy in the cache, fetched once; it appears there by one rename."""
        final = self.housekeeping / "copies" / name / version
        if final.is_dir():
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{version}-"))
        base = self._key(f"{name}/{version}/")
        for key in self._list(base):
            file = fresh / key.removeprefix(base)
            file.parent.mkdir(parents=True, exist_ok=True)
            self.client.download_file(self.bucket, key, str(file))
        try:
            fresh.rename(final)
        except OSError:  # another process fetched it meanwhile
            shutil.rmtree(fresh, ignore_errors=True)
        return final

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
        names = (key.removeprefix(base) for key in self._list(base))
        return sorted(name for name in names if "/" not in name)

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _get(self, key: str) -> bytes | None:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None
        except Exception as error:
            raise StoreError(
                f"Cannot read s3://{self.bucket}/{self._key(key)}: {error}. Check AWS_* and the bucket."
            ) from error

    def _put(self, key: str, data: bytes, *, only_if_absent: bool) -> bool:
        from botocore.exceptions import ClientError

        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        try:
            self.client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, **condition)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                return False
            raise StoreError(f"Cannot write s3://{self.bucket}/{self._key(key)}: {error}. Check AWS_*.") from error
        return True

    def _list(self, base: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=base)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
