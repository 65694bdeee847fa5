"""New pictures in the source are retrained on, once each: the real daemon over a real folder."""

import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from tests.integration.daemons import LOCATION, ROOT, daemon, settings
from vlm_assets.contracts import ArtifactRef, Recipe
from vlm_assets.monitoring.news import source_fingerprint
from vlm_assets.monitoring.retraining import DATA_TAG, REASON_TAG
from vlm_assets.release.ledger import Ledger
from vlm_assets.resources import StoreResource
from vlm_assets.store import Store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
PATIENCE_S = 90.0
FURTHER_TICKS_S = 6.0


def build(store: Store, name: str, *parents: ArtifactRef, **inputs: str) -> ArtifactRef:
    recipe = Recipe(name, "1", parents=parents, inputs=inputs)
    return store.build(recipe, lambda draft: (draft.path / "x").touch()).ref


def captioned(folder: Path, caption: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(b"a picture")
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": "{caption}"}}\n')


def test_a_source_that_changed_is_retrained_on_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text(f"ops: {{raw_dataset: {{config: {{source: {{image_folder: {{path: '{tmp_path / 'in'}'}}}}}}}}}}")
    for name, value in {**settings(tmp_path), "VLM_PRESET": str(preset), "VLM_STORE": str(tmp_path / "store")}.items():
        monkeypatch.setenv(name, value)
    captioned(tmp_path / "in", "a coat")
    store = StoreResource().open()
    raw = build(store, "raw_dataset", source=source_fingerprint())
    model = build(store, "finetuned_model", build(store, "tokenized_shards", raw))
    Ledger(store).promote(model, "bundle", seen=None, why="test", run_id="", scores={})

    start = [sys.executable, "-m", "dagster", "sensor", "start", "data_sensor", "-m", LOCATION]
    subprocess.run(start, cwd=ROOT, check=True, capture_output=True, timeout=120)  # as a user switches it on
    with dg.DagsterInstance.get() as instance, daemon(tmp_path) as process:

        def wait_for(runs: int) -> list[dg.DagsterRun]:
            deadline_s = time.monotonic() + PATIENCE_S
            while len(found := list(instance.get_runs(dg.RunsFilter(job_name="retrain")))) < runs:
                assert process.poll() is None, (tmp_path / "daemon.log").read_text()[-2000:]
                assert time.monotonic() < deadline_s, f"{len(found)} retrainings, {runs} expected"
                time.sleep(0.5)
            time.sleep(FURTHER_TICKS_S)
            return list(instance.get_runs(dg.RunsFilter(job_name="retrain")))

        deadline_s = time.monotonic() + PATIENCE_S
        while "data_sensor" not in (tmp_path / "daemon.log").read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.5)
        assert wait_for(0) == []  # nothing is new yet
        captioned(tmp_path / "in", "a red coat")
        first = wait_for(1)
        assert [run.tags[REASON_TAG] for run in first] == ["data"]
        captioned(tmp_path / "in", "a long red coat")
        assert len({run.tags[DATA_TAG] for run in wait_for(2)}) == 2
        assert len(wait_for(2)) == 2
