"""A connection to Ray: a standing cluster, or one of this machine's own for as long as it takes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vlm_assets.data.workers import available_cores
from vlm_assets.errors import ConfigError

KNOCK_SECONDS = 10.0


@contextmanager
def connected(address: str, otherwise: str) -> Iterator[None]:
    """Connect to the cluster at `address` ("": the one that this machine belongs to), unless somebody has already.

    Raises ConfigError if there is none; `otherwise` ends its text: what else can be done.
    """
    import ray

    if ray.is_initialized():  # by whoever called us: theirs to end
        yield
        return
    try:
        knock(address)  # Ray itself would try for minutes
        ray.init(address=address or "auto", log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"There is no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]} Start one, set "
            f"VLM_RAY_ADDRESS, or {otherwise}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def connected_or_local(address: str) -> Iterator[None]:
    """As `connected`, but with "" for a Ray of our own on all cores of this machine, gone when the block ends."""
    import ray

    if address or ray.is_initialized():
        with connected(address, "leave it empty to use this machine alone."):
            yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    ray.init(address="local", num_cpus=available_cores(), **options)
    try:
        yield
    finally:
        ray.shutdown()


def knock(address: str) -> None:
    """Raise OSError if nobody listens at `host:port`; other forms of address are Ray's to judge."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
