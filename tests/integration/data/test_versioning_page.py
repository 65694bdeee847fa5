"""docs/versioning.md cannot rot: its marked commands run, in order, against a real S3 server."""

import os
import re
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.integration.data.registry import git
from tests.seaweed import BUCKET
from vlm_assets.data.registry import REGISTRY_ENV
from vlm_assets.data.registry_commands import DVC_ENV
from vlm_assets.store_s3 import CACHE_ENV, CACHE_LIMIT_ENV

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "versioning.md").read_text()
BLOCKS = re.findall(r"^<!-- run -->\n```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(script: str, environment: dict[str, str]) -> str:
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


def test_the_commands_of_the_page_track_and_bring_back(home: Path) -> None:
    registry, store = home / "registry", home / "store"
    environment = {
        **os.environ,
        **{f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(home),
        "VLM_STORE": str(store),
        "DVC_NO_ANALYTICS": "1",
    }
    track, bring_back = (
        block.replace("/path/to/registry", str(registry)).replace(
            "s3://my-bucket/dvc", f"s3://{BUCKET}/dvc-{uuid.uuid4().hex[:8]}"
        )
        for block in BLOCKS
    )
    assert "pictures/s" in run(track, environment), "the first time it is imported"
    assert git(registry, "log", "-1", "--format=%s", "--", "raw_dataset.dvc").startswith("raw_dataset ")
    (version,) = [path.name for path in (store / "raw_dataset").iterdir()]
    git(registry, "tag", "v1")
    environment |= {"VLM_STORE": str(home / "another store"), "VLM_DVC_REGISTRY": str(registry)}
    environment["PATH"] = f"{ROOT / '.venv-dvc' / 'bin'}{os.pathsep}{environment['PATH']}"
    output = run(bring_back, environment)
    assert [path.name for path in (home / "another store" / "raw_dataset").iterdir()] == [version]
    assert "pictures/s" not in output, "nothing was imported"


def test_every_setting_of_versions_is_on_the_page() -> None:
    for name in (REGISTRY_ENV, DVC_ENV, CACHE_ENV, CACHE_LIMIT_ENV, "VLM_STORE", "AWS_ENDPOINT_URL"):
        assert name in PAGE
