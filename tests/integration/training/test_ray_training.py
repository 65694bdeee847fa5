"""Two workers on a real local Ray, submitted through Dagster Pipes: the same training, and it outlives a worker."""

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil
import pytest

from tests.unit.vlm_assets.training.inputs import tiny_inputs
from vlm_assets.errors import TrainingError
from vlm_assets.training.checkpoints import COMPLETE
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.finetune import Inputs, fit
from vlm_assets.training.ray_submit import train_on_ray
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner

SETTINGS: dict[str, Any] = {
    "steps": 40, "learning_rate": 2e-3, "precision": "fp32", "threads": 1, "attention": "fused",
    "checkpoint_every_steps": 10, "golden_pictures": 1, "label_smoothing": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return tiny_inputs(tmp_path_factory.mktemp("inputs"))


def materialize(
    inputs: Inputs, config: FinetuneConfig, home: Path
) -> tuple[dict[str, Any], list[tuple[str, float, int]]]:
    points: list[tuple[str, float, int]] = []
    out, scratch = home / "out", home / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()

    @dg.asset
    def candidate(context: dg.AssetExecutionContext):
        train_on_ray(context, out, inputs, config, {"by": "test"}, scratch, lambda *point: points.append(point))
        return dg.MaterializeResult()

    dg.materialize([candidate])
    return json.loads((out / "training.json").read_text()), points


def losses(summary: dict[str, Any]) -> list[float]:
    return [value for _, value in summary["train_loss"]]


@pytest.fixture(scope="module")
def alone(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same training in one process: 1 worker x 8 pictures."""
    scratch = tmp_path_factory.mktemp("alone")
    return fit(inputs, FinetuneConfig(**SETTINGS, batch_size=8), scratch, lambda _: None, None)[1]


def test_two_workers_train_as_one_does_and_seal_a_bundle_that_opens(
    inputs: Inputs, alone: dict[str, Any], tmp_path: Path
) -> None:
    summary, points = materialize(inputs, FinetuneConfig(**SETTINGS, batch_size=4, workers=2), tmp_path)
    np.testing.assert_allclose(losses(summary), losses(alone), rtol=1e-3)
    assert losses(alone)[-1] < losses(alone)[0]
    assert [step for name, _, step in points if name == "val_cider"] == [10, 20, 30, 40]
    bundle = open_bundle(tmp_path / "out" / "bundle")
    assert bundle.version == summary["bundle_version"]
    assert Captioner(bundle, threads=1).check_golden() == 2  # the picture, and it as a large JPEG
    card = (bundle.path / "README.md").read_text()
    assert re.search(r"\| validation cider \| [\d.]+ \([\d.]+ to [\d.]+\), n = 8 \|", card)


def test_a_killed_worker_costs_steps_and_not_the_training(
    inputs: Inputs, alone: dict[str, Any], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        """Kill one training worker as soon as there is a checkpoint to go back to."""
        while not list(tmp_path.glob(f"scratch/checkpoint-*/{COMPLETE}")):
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()[:1]):
                process.kill()
                killed.append(process.pid)
                return

    watcher = threading.Thread(target=kill_one, daemon=True)
    watcher.start()
    config = FinetuneConfig(**{**SETTINGS, "steps": 400}, batch_size=4, workers=2)
    summary, _ = materialize(inputs, config, tmp_path)
    assert killed
    assert summary["resumed_from_step"] >= 10
    assert summary["steps"] == 400
    assert [step for step, _ in summary["train_loss"]] == list(range(10, 410, 10))  # none lost, none twice


def test_what_a_person_must_mend_comes_back_as_one_message_and_is_not_tried_again(
    inputs: Inputs, tmp_path: Path
) -> None:
    config = FinetuneConfig(**SETTINGS, workers=2, frozen_vision_layers=40)
    with pytest.raises(TrainingError) as error:
        materialize(inputs, config, tmp_path)
    assert str(error.value).startswith("frozen_vision_layers is 40, the picture encoder has")
