"""Shards by Ray Data on a real local Ray: the same bytes as without it, and errors as one error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.pictures import png
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from vlm_assets.data.ray_shards import run_on_ray
from vlm_assets.data.shards import ShardSettings, write_shards
from vlm_assets.errors import ConfigError

pytestmark = pytest.mark.integration

SCRIPT = """
import json, sys
from pathlib import Path
from vlm_assets.data.shards import ShardSettings, write_shards
from vlm_assets.errors import VlmError
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
splits, raw, bundle, good, bad = map(Path, sys.argv[1:])
settings = ShardSettings(shard_bytes=12_000, ray_address="local")
said = []
write_shards(splits, raw, bundle, good, said.append, settings)
pack = sorted(raw.glob("pictures-*.parquet"))[-1]
hidden = pack.with_suffix(".hidden")
bad.mkdir()
(bad / "train-00000.parquet").mkdir()  # a name that is taken: this shard cannot be written
try:
    write_shards(splits, raw, bundle, bad, said.append, settings)
    error = ""
except VlmError as found:
    error = f"{type(found).__name__}: {found}"
print("RESULT" + json.dumps({"said": said, "error": error}))
"""


def test_ray_data_writes_the_same_bytes_and_its_errors_are_ours(tmp_path: Path):
    raw, splits = write_inputs(tmp_path, [png(seed) for seed in range(60)], [("a dress", "a red square")] * 60)
    bundle = tiny_bundle(tmp_path / "bundle")
    here, there = tmp_path / "here", tmp_path / "there"
    for path in (here, there):
        path.mkdir()
    counts = write_shards(splits, raw, bundle, here, print, ShardSettings(shard_bytes=12_000, workers=1))
    arguments = [str(path) for path in (splits, raw, bundle, there, tmp_path / "bad")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "RAY_AUTH_MODE": "disabled"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments],
        capture_output=True, text=True, check=False, env=environment, timeout=240, cwd=tmp_path,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    answer = json.loads(run.stdout.partition("RESULT")[2])
    ours, theirs = ({file.name: file.read_bytes() for file in path.iterdir()} for path in (here, there))
    assert ours == theirs and len(ours) > 6
    total = sum(counts.values())
    assert any(f"100% {total}/{total} pictures" in line for line in answer["said"])
    assert answer["error"].startswith("StoreError: Cannot write the shard ")
    assert "finished shards are kept" in answer["error"] and "Traceback" not in answer["error"]
    assert len(list((tmp_path / "bad").glob("*.parquet"))) > 1


def test_no_cluster_is_one_clear_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"There is no Ray cluster at 127\.0\.0\.1:1: .* leave it empty and nodes"):
        run_on_ray(None, [], "127.0.0.1:1", 0, None)  # pyright: ignore[reportArgumentType]
