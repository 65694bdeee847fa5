"""How many made copies of real photographs are found, and how many different photographs are taken for one.

    python -m tests.benchmarks.bench_dedup_quality                   # the clothing set, some minutes
    python -m tests.benchmarks.bench_dedup_quality --pictures 400 --json quality.json

The pictures are halved by a hash of their name. On one half the thresholds are chosen: those with the best recall of
the kind of copy that is found least, among those that keep all OpenMoji drawings of roles apart. On the other half they
are measured. "strangers joined" counts photographs that were joined with one that shows something else.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from tests.integration.data.clothing import CLOTHING
from tests.integration.data.photo_copies import (
    COPIES,
    MAX_STRANGERS,
    MIN_RECALL,
    Half,
    half_of,
    joined_share,
    recall,
    side_of,
    strangers,
)
from vlm_assets.data.alignment import Bytes
from vlm_assets.data.dedup import DEFAULT_THRESHOLDS, Thresholds, near_duplicates, signature
from vlm_assets.data.sources.openmoji import OpenMojiSource
from vlm_serving.images import decode_picture

CHOICES = tuple(Thresholds(mean, cell) for mean in (3.5, 4.5, 6.0) for cell in (16.0, 20.0, 24.0, 28.0, 36.0))


def drawings() -> Bytes:
    """Thumbnails of the embedded default, whose skin tones must stay apart."""
    decoded = (decode_picture(row.picture) for row in OpenMojiSource("roles", 112, "color") if row.picture)
    return np.unique(np.stack([signature(picture) for picture in decoded]), axis=0)


def choose(half: Half, siblings: Bytes) -> tuple[Thresholds, list[dict[str, Any]]]:
    """The thresholds that find most of the kind that is found least, and all that was tried."""
    tried: list[dict[str, Any]] = []
    for thresholds in CHOICES:
        tried.append(
            {
                **{field.name: getattr(thresholds, field.name) for field in fields(thresholds)},
                "least_recall": min(recall(half, kind, thresholds) for kind in COPIES if "crop" in kind),
                "strangers_share": joined_share(half, thresholds),
                "drawings_joined": len(near_duplicates(siblings, thresholds)),
            }
        )
        print(
            "  mean {mean_levels:>4} cell {cell_levels:>5}: least recall {least_recall:.4f}, strangers joined "
            "{strangers_share:.4f}, pairs of drawings joined {drawings_joined}".format(**tried[-1]),
            flush=True,
        )
    allowed = [one for one in tried if one["drawings_joined"] == 0 and one["strangers_share"] <= MAX_STRANGERS]
    best = max(allowed, key=lambda one: (one["least_recall"], -one["mean_levels"]))
    return Thresholds(best["mean_levels"], best["cell_levels"]), tried


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CLOTHING / "images", help="a folder of .jpg files")
    parser.add_argument("--pictures", type=int, help="use so many of them")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args(argv)
    paths = sorted(arguments.images.glob("*.jpg"))[: arguments.pictures]
    tuning, measuring = (half_of([path for path in paths if side_of(path) == side]) for side in (0, 1))
    print(f"chosen on {len(tuning.names):,} photographs:")
    best, tried = choose(tuning, drawings())
    print(f"best: mean {best.mean_levels}, cell {best.cell_levels}; the defaults are {DEFAULT_THRESHOLDS}")
    print(f"the defaults, measured on the other {len(measuring.names):,}:")
    by_kind = {kind: recall(measuring, kind, DEFAULT_THRESHOLDS) for kind in COPIES}
    for kind, share in by_kind.items():
        print(f"  {kind:26} {share:.4f}")
    overall = float(np.mean(list(by_kind.values())))
    share = joined_share(measuring, DEFAULT_THRESHOLDS)
    print(f"  {'overall':26} {overall:.4f}   goal: {MIN_RECALL} overall and for each kind")
    print(f"  {'strangers joined':26} {share:.4f}   goal: at most {MAX_STRANGERS}")
    result = {
        "tuning_photographs": len(tuning.names),
        "tried": tried,
        "best": {"mean_levels": best.mean_levels, "cell_levels": best.cell_levels},
        "measuring_photographs": len(measuring.names),
        "recall": by_kind,
        "overall_recall": overall,
        "strangers_share": share,
        "strangers": strangers(measuring, DEFAULT_THRESHOLDS),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
