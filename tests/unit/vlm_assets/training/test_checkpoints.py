"""Checkpoints: whole or not counted, the last and the best kept, one writer at a time."""

import os
import signal
import threading
from pathlib import Path

import pytest

from vlm_assets.errors import TrainingError
from vlm_assets.training.checkpoints import COMPLETE, newest_checkpoint, sole_writer


def test_a_checkpoint_cut_off_by_a_kill_does_not_count(tmp_path: Path) -> None:
    for step in (10, 20, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-10" / COMPLETE).touch()
    (tmp_path / "checkpoint-20" / COMPLETE).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-20"
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_one_training_writes_at_a_time(tmp_path: Path) -> None:
    said: list[str] = []
    with sole_writer(tmp_path, said.append):
        with (
            pytest.raises(TrainingError, match=rf"Another training .* writing into {tmp_path} for the last 0.3 s"),
            sole_writer(tmp_path, said.append, patience_s=0.3),
        ):
            pass
        assert said == [f"waiting for another training to leave {tmp_path}"]
        entered = threading.Event()

        def wait() -> None:
            with sole_writer(tmp_path, said.append):
                entered.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(0.3)
    assert entered.wait(5)
    waiting.join()


def test_a_killed_training_leaves_nothing_locked(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with sole_writer(tmp_path, print):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with sole_writer(tmp_path, print, patience_s=0):
        pass
