"""How to run the arithmetic of training on this machine: CPU threads and attention kernel, chosen by measuring.

Neither has one right answer. On a quiet 2-core machine two threads train 1.6 times as fast as one; beside other work
they are slower, since each parallel region waits for the thread that lost its core. Fused attention saves memory and
time on long sequences; its backward pass on the CPU is slow for short ones: on blip-mini's 37 vision tokens stock
attention trains 1.5 times as fast.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "tuning.json"
WARM_UP_STEPS, TIMED_STEPS = 1, 3


@dataclass(frozen=True)
class Tuning:
    """One way to run: CPU threads, and fused or stock attention."""

    threads: int
    fused_attention: bool

    def __str__(self) -> str:
        """As the log shows it."""
        kind = "fused" if self.fused_attention else "stock"
        return f"{self.threads} thread{'s' * (self.threads > 1)}, {kind} attention"

    def apply(self, model: Any) -> None:
        """Make it so, for torch and for the model."""
        import torch

        from vlm_serving.model import use_fused_attention, use_stock_attention

        torch.set_num_threads(self.threads)
        (use_fused_attention if self.fused_attention else use_stock_attention)(model)


def settle(
    model: Any, threads: int, attention: str, device: str, scratch: Path, step: Callable[[], object]
) -> tuple[Tuning, str]:
    """Apply the fastest tuning, or the one that an interrupted run had; returns it with the reason.

    `step` runs one step of the work to be done; `threads` 0 and `attention` "auto" leave them open. A resumed run
    keeps its tuning: sums in another order are other bits.
    """
    tuning, reason = _decide(model, threads, attention, device, scratch, step)
    tuning.apply(model)
    return tuning, reason


def _decide(
    model: Any, threads: int, attention: str, device: str, scratch: Path, step: Callable[[], object]
) -> tuple[Tuning, str]:
    file = scratch / FILE
    if file.is_file():
        return Tuning(**json.loads(file.read_text())), "as before the interruption"
    available = len(os.sched_getaffinity(0))
    if device != "cpu":
        return Tuning(threads or available, attention != "stock"), "on a GPU"
    counts = [threads] if threads else sorted({1, available})
    kernels = [True, False] if attention == "auto" else [attention == "fused"]
    ways = [Tuning(count, fused) for count in counts for fused in kernels]
    if len(ways) == 1:
        return ways[0], "as configured"
    seconds = {way: _seconds_per_step(way, model, step) for way in ways}
    fastest = min(seconds, key=seconds.__getitem__)
    scratch.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(fastest)))
    others = "; ".join(f"{way} {1000 * taken:.0f} ms" for way, taken in seconds.items() if way != fastest)
    return fastest, f"{1000 * seconds[fastest]:.0f} ms a step; {others}"


def _seconds_per_step(way: Tuning, model: Any, step: Callable[[], object]) -> float:
    way.apply(model)
    for _ in range(WARM_UP_STEPS):
        step()
    started_s = time.perf_counter()
    for _ in range(TIMED_STEPS):
        step()
    return (time.perf_counter() - started_s) / TIMED_STEPS
