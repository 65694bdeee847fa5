"""The whole chain on a model so small that it learns nothing: every stage, every edge, the real Ray Serve."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
import pytest

from vlm_assets.release.ledger import Ledger
from vlm_assets.store import Store
from vlm_serving.bundle import open_bundle

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]

MINI = {"width": 32, "heads": 2, "vision_layers": 1, "text_layers": 1, "image_size_px": 32, "vocab_size": 1000}
QUICK = {"steps": 6, "batch_size": 8, "threads": 1, "precision": "fp32"}
GATE = {"beat_baselines": False, "max_empty_share": 1.0, "max_looping_share": 1.0, "max_most_frequent_share": 1.0}
CONFIG: dict[str, Any] = {
    "ops": {
        "raw_dataset": {"config": {"source": {"openmoji": {"size_px": 32}}}},
        "base_model": {"config": {"start": {"blip_mini": {**MINI, "pretrain": QUICK}}}},
        "finetuned_model": {"config": QUICK},
        "eval_report": {"config": {"splits": ["test"], "max_pictures": 16, "resamples": 100, "gate": GATE}},
        "champion_report": {"config": {"max_pictures": 16, "resamples": 100, "min_pictures": 5}},
    }
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def run(
    home: Path,
    config: dict[str, Any],
    select: str = "*",
    settings: Mapping[str, str] = MappingProxyType({}),
    timeout_s: float = 280,
) -> "subprocess.CompletedProcess[str]":
    """`dagster asset materialize`, as a user types it, with settings of a deployment in the environment."""
    file = home / "config.yaml"
    file.write_text(json.dumps(config))
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", select]
    command += ["-m", "vlm_assets.definitions", "-c", str(file)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLM_")}
    environment |= {"DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT), **settings}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=timeout_s
    )


def versions(home: Path) -> dict[str, list[str]]:
    store = home / "store"
    return {
        folder.name: sorted(version.name for version in folder.iterdir())
        for folder in store.iterdir()
        if folder.name not in ("refs", "ledger", "data_docs", ".vlm")
    }


def test_from_source_to_a_served_captioner_and_again_without_work(home: Path) -> None:
    first = run(home, CONFIG)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    made = versions(home)
    assert set(made) == {
        "raw_dataset", "validated_splits", "tokenized_shards", "base_model", "finetuned_model", "eval_report",
        "request_log", "drift_report", "feedback_captions", "wanted_captions", "cost_report", "champion_report",
    }  # fmt: skip
    champion = Ledger(Store(home / "store")).champion()
    assert champion is not None
    assert champion.artifact.version == made["finetuned_model"][0]
    assert "captioned the golden picture" in first.stdout + first.stderr
    [report] = (home / "store" / "champion_report").iterdir()
    measured = json.loads((report / "scores.json").read_text())
    assert measured["champion"]["version"] == champion.bundle_version
    assert measured["since_release"]["metrics"]["cider"]["value"] == 0  # released on these very pictures, in this run

    second = run(home, CONFIG)
    assert second.returncode == 0, second.stderr[-3000:]
    costs, again = made.pop("cost_report"), versions(home)
    assert len(again.pop("cost_report")) > len(costs)  # this run has cost something
    assert again == made
    assert len(Ledger(Store(home / "store")).entries()) == 1


def test_the_lineage_of_the_served_bundle_leads_back_to_the_pictures(home: Path) -> None:
    store = Store(home / "store")
    champion = Ledger(store).champion()
    assert champion is not None
    seal = json.loads((store.directory(champion.artifact) / "bundle" / "bundle.json").read_text())
    shards = store.manifest(champion.artifact)["recipe"]["parents"]["tokenized_shards"]
    assert seal["lineage"]["tokenized_shards"] == shards
    assert seal["lineage"]["raw_dataset"] in versions(home)["raw_dataset"]


def test_mlflow_holds_the_run_the_curves_and_the_champion(home: Path, tmp_path: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("captioner", "champion")
    kept = mlflow.artifacts.download_artifacts("models:/captioner@champion", dst_path=str(tmp_path))
    assert open_bundle(kept).version == version.tags["bundle_version"]
    run_of_model = client.get_run(str(version.run_id))
    assert run_of_model.info.status == "FINISHED"
    assert client.get_metric_history(str(version.run_id), "finetune/val_loss")


def test_a_refused_candidate_is_red_and_the_champion_stays(home: Path) -> None:
    before = Ledger(Store(home / "store")).entries()
    strict = json.loads(json.dumps(CONFIG))
    strict["ops"]["finetuned_model"]["config"]["seed"] = 1
    strict["ops"]["eval_report"]["config"]["gate"] = {}
    done = run(home, strict, "finetuned_model,eval_report,released_model")
    assert done.returncode != 0
    assert "beats_baselines" in done.stdout + done.stderr
    assert Ledger(Store(home / "store")).entries() == before


def test_a_failed_training_is_failed_in_mlflow_and_leaves_no_artifact(home: Path) -> None:
    import mlflow

    [weights] = (home / "store" / "base_model").glob("*/bundle/model.safetensors")
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    before = versions(home)["finetuned_model"]
    other = json.loads(json.dumps(CONFIG))
    other["ops"]["finetuned_model"]["config"]["seed"] = 2
    done = run(home, other, "finetuned_model")
    weights.write_bytes(sound)
    assert done.returncode != 0
    assert "model.safetensors in the bundle" in done.stdout + done.stderr
    assert versions(home)["finetuned_model"] == before
    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    runs = mlflow.search_runs(experiment_names=["captioner"], order_by=["attributes.start_time DESC"])
    assert runs["status"].iloc[0] == "FAILED"


def test_a_selection_string_still_selects() -> None:
    """DVC's antlr 4.9 beside Dagster's 4.13 grammar breaks every selection string; nothing else would notice."""
    from vlm_assets.definitions import assets
    from vlm_assets.resources import local_resources

    defs = dg.Definitions(assets=assets, jobs=[dg.define_asset_job("j", "*")], resources=local_resources())
    assert len(defs.resolve_job_def("j").asset_layer.executable_asset_keys) == len(assets)


def test_the_notebook_shows_shards_captions_errors_and_drift_of_this_home(home: Path) -> None:
    environment = {**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.notebook", str(ROOT / "docs" / "explore.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [json.loads(line) for line in done.stdout.splitlines()]
    champion = Ledger(Store(home / "store")).champion()
    assert champion is not None and cells[0]["value"] == champion.bundle_version
    told = "\n".join(cell["value"] or "" for cell in cells)
    assert all(word in told for word in ("train", "pictures", "most_frequent", "score_cider", "not enough traffic"))
    figures = [figure for cell in cells for figure in cell["figures"]]
    assert len(figures) == 5
    assert all(sum(drawn) > 0 for drawn in figures)
    assert sum(figures[0]) == sum(figures[3]) == 10  # ten pictures of the shards, the ten worst
