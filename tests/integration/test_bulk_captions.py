"""The job `bulk_captions` on a real local Ray, with the ledger's champion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.tiny import picture_bytes, tiny_bundle
from vlm_assets.contracts import Recipe
from vlm_assets.release.ledger import Ledger
from vlm_assets.store import Store

pytestmark = pytest.mark.integration

SCRIPT = """
import json, sys
from vlm_assets.definitions import defs
job = defs.resolve_job_def("bulk_captions")
config = {"ops": {"caption_pictures": {"config": json.loads(sys.argv[1])}}}
result = job.execute_in_process(run_config=config, raise_on_error=False)
found = {"success": result.success}
for event in result.all_events:
    if event.is_step_materialization:
        plain = ((name, value.value) for name, value in event.materialization.metadata.items())
        found |= {name: value for name, value in plain if isinstance(value, (str, int))}
print("RESULT" + json.dumps(found))
"""


def run_job(home: Path, config: dict[str, object]) -> dict[str, object]:
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_AUTH_MODE": "disabled",
    }
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, json.dumps(config)],
        capture_output=True, text=True, check=False, env=environment, timeout=240, cwd=home,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.partition("RESULT")[2])


def test_a_folder_is_captioned_by_the_champion_on_ray(tmp_path: Path) -> None:
    home, shop = tmp_path / "home", tmp_path / "shop"
    home.mkdir()
    shop.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    for seed in range(30):
        (shop / f"{seed:02}.png").write_bytes(picture_bytes(seed))
    (shop / "bad.jpg").write_bytes(b"text")
    store = Store(home / "store")
    model = store.build(Recipe("finetuned_model", "1"), lambda draft: tiny_bundle(draft.path / "bundle")).ref
    bundle = json.loads((store.directory(model) / "bundle" / "bundle.json").read_text())["version"]
    Ledger(store).promote(model, bundle, seen=None, why="a test", run_id="run", scores={})

    done = run_job(home, {"pictures": str(shop), "block_pictures": 8, "workers": 2})
    assert done["success"]
    assert (done["pictures"], done["captioned"], done["failed"]) == (31, 30, 1)
    assert done["model_version"] == bundle and done["reused"] is False
    files = sorted(Path(str(done["dagster/uri"])).glob("captions-*.parquet"))
    rows = pq.read_table(files).to_pylist()
    assert [row["id"] for row in rows] == [*(f"{seed:02}.png" for seed in range(30)), "bad.jpg"]
    assert all(row["caption"] for row in rows[:-1]) and rows[-1]["caption"] is None
    assert {row["model_version"] for row in rows} == {bundle}
