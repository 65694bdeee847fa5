"""Ports that nobody takes between choosing and listening, and one clear sentence for those that are taken."""

import socket
from pathlib import Path

import pytest

from vlm_serving.errors import PortInUseError
from vlm_serving.processes import claim_port, free_port


def test_a_free_port_is_none_that_the_system_gives_to_connections() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for _ in range(50):
        assert not first <= claim_port("127.0.0.1", 0, "--port") <= last


def test_a_port_in_use_is_refused_by_name() -> None:
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(PortInUseError, match=rf"127\.0\.0\.1:{port} .*--port 0 takes a free one"):
            claim_port("127.0.0.1", port, "--port")
    assert claim_port("127.0.0.1", port, "--port") == port
