"""How many made copies of real photographs are found, and how many different photographs are taken for one.

    python -m tests.benchmarks.bench_dedup_quality                   # the clothing set, some minutes
    python -m tests.benchmarks.bench_dedup_quality --pictures 400 --json quality.json

The pictures are halved by a hash of their name. On one half the thresholds are chosen: those with the best recall of
the kind of copy that is found least, among those that keep all OpenMoji drawings of roles apart. On the other half they
are measured. "strangers joined" counts photographs that were joined with one that shows something else; pairs that show
the same thing, seen by looking at the closest ones, are named below and are no errors.
"""

import argparse
import io
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from tests.integration.data.clothing import CLOTHING
from vlm_assets.data.alignment import Bytes
from vlm_assets.data.dedup import DEFAULT_THRESHOLDS, Thresholds, near_duplicates, signature
from vlm_assets.data.sources.openmoji import OpenMojiSource
from vlm_serving.images import decode_picture

MIN_RECALL, MAX_STRANGERS = 0.95, 0.005
SAME_THING = {
    frozenset(pair)
    for pair in (
        ("9fba5065-dc5e-40b8-9548-40d2d498d7a2", "b0d71fba-23a7-4912-b6c6-16b7d8a5bd43"),
        ("74f16421-14fd-43de-9883-cbc02819336e", "2edb1db6-cd17-41d2-88e0-ba34801b656d"),
        ("26d61cdc-a947-45f1-a16c-bf3eb23a67ed", "7eeb4c2f-b0b6-4208-a5ee-aed11bce6214"),
    )
}
CHOICES = tuple(Thresholds(mean, cell) for mean in (3.5, 4.5, 6.0) for cell in (16.0, 20.0, 24.0, 28.0, 36.0))
Copy = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(quality: int) -> Copy:
    """Re-encoded."""

    def copy(image: Image.Image, _: np.random.Generator) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return copy


def resized(percent: int) -> Copy:
    """Smaller or larger."""
    return lambda image, _: image.resize((image.width * percent // 100, image.height * percent // 100))


def cropped(image: Image.Image, trims: Sequence[float]) -> Image.Image:
    """Without the given shares of left, top, right and bottom."""
    width, height = image.size
    left, top, right, bottom = trims
    return image.crop(
        (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    )


def corner(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """5 % off one side and 5 % off top or bottom."""
    trims = [0.0, 0.0, 0.0, 0.0]
    trims[rng.integers(2) * 2] = trims[rng.integers(2) * 2 + 1] = 0.05
    return cropped(image, trims)


def lit(factor: float) -> Copy:
    """Darker or brighter."""
    return lambda image, _: ImageEnhance.Brightness(image).enhance(factor)


def all_at_once(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Random light, crop, size and quality."""
    image = cropped(lit(rng.uniform(0.9, 1.1))(image, rng), rng.uniform(0, 0.05, 4).tolist())
    return jpeg(int(rng.integers(30, 96)))(resized(int(rng.integers(50, 201)))(image, rng), rng)


COPIES: Mapping[str, Copy] = {
    "JPEG q30": jpeg(30),
    "JPEG q60": jpeg(60),
    "JPEG q95": jpeg(95),
    "resized 50 %": resized(50),
    "resized 75 %": resized(75),
    "resized 150 %": resized(150),
    "resized 200 %": resized(200),
    "crop 0-5 % off each edge": lambda image, rng: cropped(image, rng.uniform(0, 0.05, 4).tolist()),
    "crop 5 % off a corner": corner,
    "crop 5 % off all edges": lambda image, _: cropped(image, (0.05, 0.05, 0.05, 0.05)),
    "brightness -10 %": lit(0.9),
    "brightness +10 %": lit(1.1),
    "all at once": all_at_once,
}


@dataclass(frozen=True)
class Half:
    """Thumbnails of some photographs and of their copies, by kind."""

    names: list[str]
    originals: Bytes
    copies: Mapping[str, Bytes]


def thumbnails(path: Path) -> Bytes:
    """(1 + kinds, 32, 32, 3): the photograph and its copies; random ones repeat for the name."""
    image = Image.open(path).convert("RGB")
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    return np.stack([signature(image), *(signature(copy(image, rng)) for copy in COPIES.values())])


def halves(paths: Sequence[Path]) -> tuple[Half, Half]:
    """Every photograph in one of two halves, by a hash of its name."""
    with Pool(2) as pool:
        made = np.stack(list(pool.imap(thumbnails, paths, chunksize=16)))
    sides = np.array([zlib.crc32(f"half {path.stem}".encode()) % 2 for path in paths])
    first, second = (
        Half(
            [path.stem for path, at in zip(paths, sides, strict=True) if at == side],
            made[sides == side, 0],
            {kind: made[sides == side, 1 + number] for number, kind in enumerate(COPIES)},
        )
        for side in (0, 1)
    )
    return first, second


def recall(half: Half, kind: str, thresholds: Thresholds) -> float:
    """Share of the originals that are joined directly with their copy."""
    count = len(half.names)
    found = near_duplicates(np.concatenate([half.originals, half.copies[kind]]), thresholds, every_pair=True)
    return len({first for first, second, _ in found.rows() if second - first == count}) / count


def strangers(half: Half, thresholds: Thresholds) -> list[tuple[str, str]]:
    """Pairs of originals that are joined and show something else."""
    found = near_duplicates(half.originals, thresholds, every_pair=True).rows()
    pairs = [(half.names[first], half.names[second]) for first, second, _ in found]
    return [pair for pair in pairs if frozenset(pair) not in SAME_THING]


def joined_share(half: Half, thresholds: Thresholds) -> float:
    """Share of the originals that are joined with a stranger."""
    return len({name for pair in strangers(half, thresholds) for name in pair}) / len(half.names)


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
    tuning, measuring = halves(sorted(arguments.images.glob("*.jpg"))[: arguments.pictures])
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
