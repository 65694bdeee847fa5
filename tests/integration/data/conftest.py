"""A data registry for tests: git and DVC as commands, an S3 server as DVC's remote."""

import os
import uuid
from pathlib import Path

import pytest

from tests.integration.data.registry import make_registry
from tests.seaweed import BUCKET, Seaweed, set_environment
from vlm_assets.data.registry_commands import OWN_DVC


@pytest.fixture
def home(seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without git's and DVC's own settings, and the way in to the S3 server."""
    assert OWN_DVC.is_file(), "run `make dvc` first"
    set_environment(monkeypatch, seaweed.environment())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    return tmp_path


@pytest.fixture
def root(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty registry whose remote is the S3 server."""
    root = home / "registry"
    make_registry(root, f"s3://{BUCKET}/dvc-{uuid.uuid4().hex[:8]}")
    monkeypatch.setenv("VLM_DVC_REGISTRY", str(root))
    return root
