"""Fixtures for the tests of the sources."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.vlm_assets.data.sources.places import Place, s3_in_memory


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A local folder, then S3."""
    if request.param == "local":
        (tmp_path / "set").mkdir()
        yield Place(str(tmp_path / "set"))
    else:
        with s3_in_memory() as place:
            yield place
