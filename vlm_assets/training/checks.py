"""Whether a training did what it is for."""

import math
from collections.abc import Mapping
from typing import Any

LOSS_FELL = "training_loss_fell"
SEVERITY = "WARN"  # a candidate that learnt nothing is stopped by the gate; this says sooner why


def loss_fell(summary: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Whether every training loss is finite and the last point of the curve lies below the first; and what was seen."""
    curve: list[tuple[int, float]] = summary["train_loss"]
    finite = all(math.isfinite(loss) for _, loss in curve)
    passed = finite and len(curve) > 1 and curve[-1][1] < curve[0][1]
    seen = {"points": len(curve)}
    if curve:
        seen |= {"first_step": curve[0][0], "first_loss": curve[0][1]}
        seen |= {"last_step": curve[-1][0], "last_loss": curve[-1][1]}
    return passed, seen
