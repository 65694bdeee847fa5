"""Servers that several integration tests share."""

from collections.abc import Iterator

import pytest

from tests.seaweed import Seaweed, run_seaweed


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server, started by the first test that asks for it."""
    with run_seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
