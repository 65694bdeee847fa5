"""A store with real models, made once a module; a ledger for each test."""

import pytest

from tests.unit.vlm_assets.release.place import Place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("release"))


@pytest.fixture
def place(made: Place) -> Place:
    """The same models and an empty ledger."""
    for file in (made.root / "store" / "ledger").glob("*.json"):
        file.unlink()
    return made
