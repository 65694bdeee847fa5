"""Where the tests of a source put its files: a local folder, or S3 in memory. The same tests run on both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUCKET = "pictures"


@dataclass(frozen=True)
class Place:
    """A root to put files into."""

    root: str
    client: Any = None  # S3's; None: the root is a local folder

    def put(self, name: str, data: bytes) -> None:
        """Write one file."""
        if self.client is None:
            path = Path(self.root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        else:
            self.client.put_object(Bucket=BUCKET, Key=f"set/{name}", Body=data)

    def put_folder(self, folder: Path) -> None:
        """Write all files below a local folder."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(file.relative_to(folder).as_posix(), file.read_bytes())


@contextmanager
def s3_in_memory() -> Iterator[Place]:
    """A bucket that lives as long as the test."""
    import boto3
    import moto

    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield Place(f"s3://{BUCKET}/set", client)
