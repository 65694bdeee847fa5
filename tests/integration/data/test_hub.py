"""A data set from the hub, through the real client and a small hub on loopback: the commit is pinned and recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.hub import COMMIT, run_hub
from tests.unit.vlm_assets.data.pictures import png

pytestmark = pytest.mark.integration
REPO = "someone/blocks"
# in a process of its own: the client reads the hub's address when it is imported
READ = """
import json, sys
from vlm_assets.data.sources.huggingface import HuggingFaceConfig
from vlm_assets.errors import SourceError
try:
    source = HuggingFaceConfig(**json.loads(sys.argv[1])).open()
    fingerprint, total, rows = source.fingerprint(), source.total(), list(source)
    print(json.dumps({
        "fingerprint": fingerprint, "total": total, "url": source.attribution.url,
        "rows": [[row.source_row, row.split, row.group, row.file_name, row.captions, row.reason] for row in rows],
        "pictures": [row.picture.hex() for row in rows],
    }))
except SourceError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Parquet as `push_to_hub` lays it out."""
    from datasets import Dataset, Image

    for split, numbers in {"train": range(4), "validation": range(4, 6)}.items():
        images = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
        columns = {"image": images, "text": [f"picture {n}" for n in numbers], "maker": [n % 2 for n in numbers]}
        file = tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_dict(columns).cast_column("image", Image()).to_parquet(file)
    (tmp_path / "set" / "README.md").write_text("---\nlicense: cc0-1.0\n---\nBlocks.\n")
    return tmp_path / "set"


def read(endpoint: str, home: Path, **config: Any) -> dict[str, Any]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home)}
    command = [sys.executable, "-c", READ, json.dumps({"path": REPO, **config})]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_data_set_of_the_hub_is_streamed_at_a_recorded_commit(published: Path, tmp_path: Path):
    with run_hub(REPO, published) as endpoint:
        newest = read(endpoint, tmp_path / "home", group_column="maker")
        pinned = read(endpoint, tmp_path / "home", revision=COMMIT)
    assert newest["url"] == f"https://huggingface.co/datasets/{REPO}/tree/{COMMIT}"
    assert newest["fingerprint"] == pinned["fingerprint"]
    assert newest["total"] == 6
    assert newest["pictures"] == [png(number).hex() for number in range(6)]
    assert newest["rows"][0] == ["train:1", "train", "0", "0.png", ["picture 0"], ""]
    assert newest["rows"][5] == ["validation:2", "val", "1", "5.png", ["picture 5"], ""]


def test_a_data_set_that_is_not_there_is_one_sentence(published: Path, tmp_path: Path):
    with run_hub("someone/else", published) as endpoint:
        error = read(endpoint, tmp_path / "home")["error"]
        later = read(endpoint, tmp_path / "home", path="someone/else", revision="no-such-tag")["error"]
    assert error.startswith(
        "Cannot load the Hugging Face hub's data set 'someone/blocks': there is none of that name, or it is private"
    )
    assert error.endswith(
        "Check source.huggingface.path, name and revision; without a network, set path to a local copy."
    )
    assert "\n" not in error
    assert "'someone/else': it has no revision 'no-such-tag'." in later
