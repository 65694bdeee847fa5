"""How many CPU threads to train with: measured, because the right answer depends on who else is on the machine.

On a quiet 2-core machine two threads trained 1.5 times as fast as one; beside other work two were 2 to 20 times slower,
since each parallel region waits for the thread that lost its core.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

FILE = "threads.json"
WARM_UP_STEPS, TIMED_STEPS = 1, 4


def settle_threads(setting: int, scratch: Path, step: Callable[[], object]) -> tuple[int, str]:
    """Set torch's threads: as configured, as a resumed run had them, or the faster of one and all; with the reason.

    `step` runs one step of the work to be done. A resumed run keeps its count: sums in another order are other bits.
    """
    import torch

    threads, reason = _decide(setting, scratch, step)
    torch.set_num_threads(threads)
    return threads, reason


def _decide(setting: int, scratch: Path, step: Callable[[], object]) -> tuple[int, str]:
    if setting:
        return setting, "as configured"
    file = scratch / FILE
    if file.is_file():
        return int(json.loads(file.read_text())["threads"]), "as before the interruption"
    available = len(os.sched_getaffinity(0))
    if available == 1:
        return 1, "the only core"
    seconds = {count: _seconds_per_step(count, step) for count in (1, available)}
    fastest = min(seconds, key=seconds.__getitem__)
    scratch.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"threads": fastest, "seconds_per_step": seconds}))
    return fastest, ", ".join(
        f"{count} thread{'s' * (count > 1)} {1000 * s:.0f} ms/step" for count, s in seconds.items()
    )


def _seconds_per_step(threads: int, step: Callable[[], object]) -> float:
    import torch

    torch.set_num_threads(threads)
    for _ in range(WARM_UP_STEPS):
        step()
    started_s = time.perf_counter()
    for _ in range(TIMED_STEPS):
        step()
    return (time.perf_counter() - started_s) / TIMED_STEPS
