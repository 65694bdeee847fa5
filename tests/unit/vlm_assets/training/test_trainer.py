"""Training: it learns, it stops at nonsense, it resumes where it was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import picture_bytes, tiny_bundle
from vlm_assets.errors import TrainingError
from vlm_assets.training.batches import Example
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.trainer import COMPLETE, newest_checkpoint, train
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.images import decode_picture
from vlm_serving.model import load_model

CAPTIONS = [
    "a red square",
    "a blue circle",
    "a green dress",
    "a woman scientist",
    "a dress",
    "a circle",
    "a red dress",
    "sleeves",
]
FAST = TrainSettings(
    steps=150, batch_size=8, learning_rate=5e-3, precision="fp32", threads=1, label_smoothing=0.0, attention="fused"
)


def examples(bundle: Path) -> list[Example]:
    captioner = Captioner(open_bundle(bundle))
    contract = captioner.bundle.contract
    pairs: list[Example] = []
    for number, caption in enumerate(CAPTIONS):
        ids = captioner.tokenizer.encode(caption, add_special_tokens=False)
        pairs.append(Example(picture_bytes(number, (32, 32)), (contract.bos_token_id, *ids, contract.eos_token_id)))
    return pairs


def test_eight_pictures_learnt_by_heart_come_back_verbatim_through_the_captioner(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    captioner = Captioner(bundle, threads=1)
    captioner.model.train()
    result = train(captioner.model, examples(bundle.path), [], bundle.contract, FAST, tmp_path / "scratch", print)
    captioner.model.eval()
    said = captioner.caption([decode_picture(picture_bytes(number, (32, 32))) for number in range(len(CAPTIONS))])
    assert [caption.text for caption in said] == CAPTIONS
    assert all(caption.confidence > 0.5 for caption in said)
    assert (result.steps, result.resumed_from_step) == (150, 0)
    assert result.train_loss[-1][1] < 0.2 < result.train_loss[0][1]


def test_an_empty_train_split_is_an_error_before_any_work(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    with pytest.raises(TrainingError, match="nothing to learn from: the train split is empty"):
        train(load_model(bundle.path), [], [], bundle.contract, FAST, tmp_path / "scratch", print)


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_step(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    model = load_model(bundle.path)
    with torch.no_grad():
        model.text_decoder.cls.predictions.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"train_loss is nan at step 10\. Lower learning_rate \(now 0\.005\)"):
        train(model, examples(bundle.path), [], bundle.contract, FAST, tmp_path / "scratch", print)


KILLED = """
import os, sys
from pathlib import Path
from tests.unit.vlm_assets.training.test_trainer import FAST, examples
from dataclasses import replace
from vlm_assets.training.trainer import train
from vlm_serving.bundle import open_bundle
from vlm_serving.model import load_model
import torch
bundle = open_bundle(sys.argv[1])
kill_at = int(sys.argv[3])
def metric(name, value, step):
    if step == kill_at: os.kill(os.getpid(), 9)
model = load_model(bundle.path)
settings = replace(FAST, steps=40, checkpoint_every_steps=10)
result = train(model, examples(bundle.path), [], bundle.contract, settings, Path(sys.argv[2]), print, metric)
torch.save(model.state_dict(), sys.argv[4])
print("resumed from", result.resumed_from_step)
"""


def run_killed(bundle: Path, scratch: Path, kill_at: int, out: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(bundle), str(scratch), str(kill_at), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[4],
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip


def test_killed_and_run_again_gives_the_very_weights_of_an_uninterrupted_run(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    whole = run_killed(bundle, tmp_path / "a", -1, tmp_path / "a.pt")
    assert whole.returncode == 0, whole.stderr
    killed = run_killed(bundle, tmp_path / "b", 30, tmp_path / "b.pt")
    assert killed.returncode == -9
    again = run_killed(bundle, tmp_path / "b", -1, tmp_path / "b.pt")
    assert "resumed from 20" in again.stdout
    ours, theirs = torch.load(tmp_path / "a.pt"), torch.load(tmp_path / "b.pt")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_checkpoint_cut_off_by_a_kill_does_not_count(tmp_path: Path) -> None:
    for step in (10, 20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-10" / COMPLETE).touch()
    (tmp_path / "checkpoint-20" / COMPLETE).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert newest_checkpoint(tmp_path / "nowhere") is None
