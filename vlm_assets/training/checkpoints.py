"""Checkpoints on disk: marked when whole, the last and the best kept, none written by two trainings at once."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState

from vlm_assets.errors import TrainingError

COMPLETE = "complete"  # written into a checkpoint when all of it is on disk

LOCK = "writer.lock"
PATIENCE_S = 60.0  # Ray ends the workers of a driver that was killed within seconds


@contextmanager
def sole_writer(scratch: Path, log: Callable[[str], object], patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Be the one training that writes into `scratch`; another may need a moment to end. Raises TrainingError.

    The kernel frees the lock when its holder dies, however it dies. Of several workers the first one holds it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / LOCK).open("w") as file:
        until_s, waits = time.monotonic() + patience_s, False
        while not _taken(file):
            if time.monotonic() > until_s:
                raise TrainingError(
                    f"Another training of the same data and settings has been writing into {scratch} for the last "
                    f"{patience_s:g} s. Wait for it to end, or end it, then run this one again."
                )
            if not waits:
                log(f"waiting for another training to leave {scratch}")
                waits = True
            time.sleep(0.2)
        yield


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def newest_checkpoint(scratch: Path) -> Path | None:
    """The newest checkpoint that was written to the end; one cut off by a kill does not count."""
    complete = (path.parent for path in scratch.glob(f"checkpoint-*/{COMPLETE}"))
    return max(complete, key=step_of, default=None)


def agreed_checkpoint(scratch: Path) -> Path | None:
    """The newest checkpoint, as the first worker sees it: all must start from the same."""
    if not torch.distributed.is_initialized():
        return newest_checkpoint(scratch)
    found = [newest_checkpoint(scratch)]
    torch.distributed.broadcast_object_list(found)
    return found[0]


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which it was written."""
    return int(checkpoint.name.rsplit("-", 1)[1])


def is_final(state: TrainerState) -> bool:
    """Whether the checkpoint that `state` was read from ended its training: all steps made, or stopped early."""
    saved: Any = state.stateful_callbacks
    return bool(saved["TrainerControl"]["args"]["should_training_stop"])


class Checkpoints(TrainerCallback):
    """Marks what Trainer has written, then removes what is no longer needed: a kill at any moment leaves one whole.

    `complete` adds to a checkpoint what Trainer does not write.
    """

    def __init__(self, complete: Callable[[Path], object] = lambda path: None) -> None:
        self._complete = complete

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """All workers have written their parts."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        scratch = Path(args.output_dir or "")
        written = scratch / f"checkpoint-{state.global_step}"
        self._complete(written)
        (written / COMPLETE).touch()
        _remove_all_but({written, scratch / f"checkpoint-{state.best_global_step}"}, scratch)


def _remove_all_but(kept: set[Path], scratch: Path) -> None:
    for path in set(scratch.glob("checkpoint-*")) - kept:
        (path / COMPLETE).unlink(missing_ok=True)  # before anything else of it goes
        shutil.rmtree(path, ignore_errors=True)
