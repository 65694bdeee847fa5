"""Unit tests open no socket, start no Ray and see an empty home."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_socket_class = socket.socket


class NoSocket(_socket_class):
    """Socket pairs inside the process are fine (asyncio needs them); anything with an address is not."""

    def connect(self, address: Any) -> None:
        raise RuntimeError(f"a unit test connected to {address}: move it to tests/integration")

    def connect_ex(self, address: Any) -> int:
        raise RuntimeError(f"a unit test connected to {address}: move it to tests/integration")

    def bind(self, address: Any) -> None:
        raise RuntimeError(f"a unit test bound {address}: move it to tests/integration")


def _no_ray(*_: Any, **__: Any) -> None:
    raise RuntimeError("a unit test started Ray: move it to tests/integration")


@pytest.fixture(autouse=True)
def _sealed(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home: Path = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setattr(socket, "socket", NoSocket)
    ray = sys.modules.get("ray")
    if ray is not None:
        monkeypatch.setattr(ray, "init", _no_ray)
    yield
