"""A real S3 server for tests: SeaweedFS from PyPI, on loopback, with its own users, gone afterwards."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_assets.children import end_with_parent
from vlm_serving.processes import free_port

HOST = "127.0.0.1"
BUCKET = "vlm"
START_TIMEOUT_SECONDS = 60
SECRETS = {"admin": "admin-secret-7Hq2", "writer": "writer-secret-9Zk4", "reader": "reader-secret-3Tx8"}
ACTIONS = {
    "admin": ["Admin", "Read", "Write", "List", "Tagging"],
    "writer": ["Read", "Write", "List", "Tagging"],  # cannot make buckets, as in a well-kept account
    "reader": ["Read", "List"],
}


@dataclass(frozen=True)
class Seaweed:
    """A running server with one bucket, `BUCKET`."""

    endpoint: str

    def environment(self, user: str = "writer", secret: str = "") -> dict[str, str]:
        """The AWS_* variables that let `user` in; another `secret` does not."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": user,
            "AWS_SECRET_ACCESS_KEY": secret or SECRETS[user],
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def client(self, user: str = "writer") -> Any:
        """A boto3 client of `user`."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=user,
            aws_secret_access_key=SECRETS[user],
            region_name="us-east-1",
        )

    def keys(self, prefix: str) -> list[str]:
        """All keys of the bucket below `prefix`."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@contextmanager
def run_seaweed(directory: Path) -> Iterator[Seaweed]:
    """Start the server with its data in `directory`; it is killed at the end, as a clean stop takes it 25 s."""
    identities = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": ACTIONS[name]}
        for name, secret in SECRETS.items()
    ]
    (directory / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = free_ports()
    log = directory / "weed.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(
            _command(directory, ports), stdout=sink, stderr=subprocess.STDOUT, preexec_fn=end_with_parent
        )
    try:
        seaweed = Seaweed(f"http://{HOST}:{ports['s3']}")
        _wait(seaweed, server, log)
        yield seaweed
    finally:
        server.kill()
        server.wait()
        for port in ports.values():  # it leaves its sockets behind
            for path in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


def free_ports() -> Mapping[str, int]:
    """A free port for each of the server's listeners; none of them may be computed from another."""
    names = [name + kind for name in ("s3", "master", "volume", "filer") for kind in ("", ".grpc")]
    ports: set[int] = set()
    while len(ports) < len(names):
        ports.add(free_port())
    return dict(zip(names, ports, strict=True))


def _command(directory: Path, ports: Mapping[str, int]) -> list[str]:
    return [
        str(Path(sys.executable).with_name("weed")),
        *("server", "-s3", f"-ip={HOST}", f"-ip.bind={HOST}", f"-dir={directory}", f"-s3.config={directory}/s3.json"),
        *(f"-{name}.port.grpc={ports[name + '.grpc']}" for name in ("s3", "master", "volume", "filer")),
        *(f"-{name}.port={ports[name]}" for name in ("s3", "master", "volume", "filer")),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=50"),
    ]


def _wait(seaweed: Seaweed, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the bucket exists and takes an object."""
    client, last = seaweed.client("admin"), ""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            return
        except Exception as error:
            last = str(error)
            time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not come up ({last}):\n{log.read_text()[-2000:]}")


def set_environment(patch: Any, variables: Mapping[str, str]) -> None:
    """Put the variables into this process's environment, and take out every other AWS_* of the caller's."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)
