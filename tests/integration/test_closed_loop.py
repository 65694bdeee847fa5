"""The closed loop as `make drift-demo` tells it, on a model so small that only the events count, not the scores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
STEPS = (
    "trained on colour, released, served",
    "colour traffic: no alarm",
    "flat traffic: drift in 2 windows of 2",
    "nothing to learn from: pictures listed",
    "corrections accepted",
    "the sensor asks for a retraining, once",
    "gate passed on the mixed test",
    "swapped under traffic, 0 dropped",
    "exactly one retraining",
    "a bad candidate is refused by the gate",
    "the bad one is forced past the gate",
    "the online guard rolls it back",
    "0 dropped through all swaps",
)
SMALL = """
from vlm_assets.cli.drift_demo import drift_demo
from vlm_assets.cli.drift_world import Size
model = {"width": 96, "heads": 2, "vision_layers": 2, "text_layers": 1, "image_size_px": 64, "vocab_size": 1000}
gate = {"beat_baselines": False, "champion_margin": 0.3}  # it learns too little to beat a copy of the nearest picture
raise SystemExit(drift_demo(Size(base_steps=200, steps=800, bad_steps=1, model=model, gate=gate, learns=False)))
"""


def test_every_step_is_seen(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VLM_")}
    environment |= {"DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SMALL], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    said = done.stdout[-6000:] + done.stderr[-2000:]
    assert done.returncode == 0, said
    for step in STEPS:
        assert f"seen: {step}" in done.stdout, said
