"""How long it takes to cluster N pictures and to check the splits, in how much memory; and what the worst cases cost.

    python -m tests.benchmarks.bench_dedup                        # 1,000,000 thumbnails
    python -m tests.benchmarks.bench_dedup --hashes 50000 --json dedup.json

Thumbnails are made, not read: the time to decode and shrink pictures is no part of it. Each case runs in a process of
its own, so that its peak memory is its own. The photographs are those of the clothing set (VLM_CLOTHING), each cut,
turned over and coloured anew so often that most are strangers to each other, all of one kind.
"""

import argparse
import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from tests.integration.data.clothing import CLOTHING
from vlm_assets.data.alignment import THUMB_PX, Bytes, Floats
from vlm_assets.data.dedup import DEFAULT_THRESHOLDS, near_duplicates, pairs_among
from vlm_assets.data.leak_search import torn_pairs
from vlm_assets.data.settling import settle
from vlm_assets.data.split import Candidate, SplitPlan
from vlm_assets.data.workers import in_order

COPY_SHARE = 0.02
CROWD = 5000
ON_WHITE = 50  # one in so many: time grows with the square of their number
CHUNK = 20_000
PHOTO_PX, PHOTO_CHUNK = 64, 2000
MB = 1e6
CENTRES = np.linspace(0, 6, THUMB_PX)


@dataclass(frozen=True)
class Case:
    """One measurement."""

    name: str
    pictures: int
    links: int
    planted: int  # copies that were made
    found: int  # of them
    link_seconds: float
    assign_seconds: float
    check_seconds: float  # the search for leaks by the check of the splits
    cpu_seconds: float  # of all three, all threads: what does not hang on what else the machine does
    thumbnails_mb: float
    peak_mb: float  # of the whole process, thumbnails included


def blocks(count: int, rng: np.random.Generator) -> Bytes:
    """8 x 8 blocks of random colours: hashes spread evenly."""
    return rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)


def smooth(count: int, rng: np.random.Generator) -> Bytes:
    """7 x 7 random colours blended into each other: hashes crowd, as those of photographs do."""
    blend = np.maximum(1 - np.abs(CENTRES[:, None] - np.arange(7)), 0).astype(np.float32)  # (32, 7)
    coarse = rng.integers(0, 256, (count, 3, 7, 7)).astype(np.float32)
    return np.ascontiguousarray((blend @ coarse @ blend.T).transpose(0, 2, 3, 1)).astype(np.uint8)


def with_copies(count: int, make: Callable[[int, np.random.Generator], Bytes]) -> tuple[Bytes, list[tuple[int, int]]]:
    """Random pictures of which the last 2 % are noisy copies of earlier ones; and the pairs that were planted."""
    rng = np.random.default_rng(0)
    levels = np.empty((count, THUMB_PX, THUMB_PX, 3), dtype=np.uint8)
    for low in range(0, count, CHUNK):
        levels[low : low + CHUNK] = make(min(CHUNK, count - low), rng)
    copies = int(count * COPY_SHARE)
    sources = rng.integers(0, count - copies, copies)
    noise = rng.integers(-3, 4, (copies, THUMB_PX, THUMB_PX, 3), dtype=np.int16)
    levels[count - copies :] = np.clip(levels[sources] + noise, 0, 255)
    return levels, list(zip(sources.tolist(), range(count - copies, count), strict=True))


def crowd(noise: int, ground: bool) -> Bytes:
    """Pictures with the same edges: equal, with noise, or in 4,096 pairs of colours, 30 levels from one to the next."""
    rng = np.random.default_rng(0)
    levels = np.repeat(np.clip(smooth(1, rng), 60, 190), CROWD, axis=0)
    if ground:
        steps = np.stack(np.meshgrid(*[np.arange(0, 120, 30)] * 6), axis=-1).reshape(-1, 1, 1, 6)
        figure = levels[: len(steps)].mean(axis=3, keepdims=True) < 125
        levels = np.where(figure, steps[..., :3], 140 + steps[..., 3:]).astype(np.uint8)
    if noise:
        levels = levels + rng.integers(0, noise, levels.shape, dtype=np.uint8)
    return levels


def garments(count: int, on_white: bool) -> Bytes:
    """Photographs of clothes cut to 65 to 100 % of each side, some mirrored, each channel 30 % darker to brighter.

    `on_white`: each in the middle of a white ground, behind an oval: nearly all edges are those of the oval.
    """
    files, rng = sorted((CLOTHING / "images").glob("*.jpg")), np.random.default_rng(0)
    photographs = np.stack(list(in_order(_small, files)))  # (2989, 64, 64, 3)
    levels = np.empty((count, THUMB_PX, THUMB_PX, 3), dtype=np.uint8)
    for low in range(0, count, PHOTO_CHUNK):
        some = min(PHOTO_CHUNK, count - low)
        picture = photographs[rng.integers(0, len(photographs), some)].astype(np.float32)
        rows, columns = _cut(some, rng), _cut(some, rng)
        picture = columns[:, None] @ (rows @ picture.reshape(some, PHOTO_PX, -1)).reshape(some, PHOTO_PX, PHOTO_PX, 3)
        picture = np.clip(picture * rng.uniform(0.7, 1.3, (some, 1, 1, 3)), 0, 255)
        if on_white:
            shown = _oval(some, rng)
            picture = picture * shown + 255 * (1 - shown)
        levels[low : low + some] = picture.reshape(some, THUMB_PX, 2, THUMB_PX, 2, 3).mean((2, 4))
    return levels


def _small(file: Path) -> Bytes:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((PHOTO_PX, PHOTO_PX), Image.Resampling.BOX))


def _cut(count: int, rng: np.random.Generator) -> Floats:
    """(count, 64, 64): a part of one side, perhaps mirrored."""
    scale = rng.uniform(0.65, 1.0, (count, 1))
    middle, side = rng.uniform(-1, 1, (count, 1)) * (1 - scale), rng.choice([-1, 1], (count, 1))
    u = (np.arange(PHOTO_PX) + 0.5) / PHOTO_PX * 2 - 1
    place = ((u * scale + middle) * side + 1) / 2 * PHOTO_PX - 0.5
    weights = np.maximum(1 - np.abs(place[..., None] - np.arange(PHOTO_PX)), 0).astype(np.float32)
    return weights / weights.sum(axis=2, keepdims=True)


def _oval(count: int, rng: np.random.Generator) -> Floats:
    """(count, 64, 64, 1): 1 inside an oval, 0 outside."""
    u = (np.arange(PHOTO_PX) + 0.5) / PHOTO_PX * 2 - 1
    wide, high = rng.uniform(0.55, 0.85, (2, count, 1, 1))
    return np.clip((1.1 - np.hypot(u / wide, u[:, None] / high)) / 0.2, 0, 1)[..., None].astype(np.float32)


def measure(name: str, levels: Bytes, planted: Sequence[tuple[int, int]] = ()) -> Case:
    """Find the pairs, assign the splits and look for leaks, as the asset and its check do."""
    start, cpu = time.perf_counter(), time.process_time()
    links = near_duplicates(levels)
    paired = time.perf_counter()
    rows = [Candidate(f"{at:016x}") for at in range(len(levels))]
    result = settle(rows, links, partial(pairs_among, levels), SplitPlan())
    assigned = time.perf_counter()
    kept = levels if len(result.split) == len(levels) else levels[list(result.split)]
    leaks = list(torn_pairs(kept, np.unique([*result.split.values()], return_inverse=True)[1], DEFAULT_THRESHOLDS))
    done, clusters = time.perf_counter(), result.cluster
    assert not leaks, f"{len(leaks)} leaks, such as {leaks[:3]}"
    return Case(
        name=name,
        pictures=len(levels),
        links=len(links),
        planted=len(planted),
        found=sum(clusters.get(one) == clusters.get(other, "") for one, other in planted),
        link_seconds=round(paired - start, 1),
        assign_seconds=round(assigned - paired, 1),
        check_seconds=round(done - assigned, 1),
        cpu_seconds=round(time.process_time() - cpu, 1),
        thumbnails_mb=round(levels.nbytes / MB),
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB),
    )


def run_case(name: str, count: int) -> Case:
    """Make the pictures of a case and measure it."""
    if name in ("random blocks", "smooth"):
        return measure(name, *with_copies(count, blocks if name == "random blocks" else smooth))
    if name.startswith("photographs"):
        on_white = name.endswith("white")
        return measure(name, garments(count // ON_WHITE if on_white else count, on_white))
    crowds = {"equal": (0, False), "noisy copies of one": (4, False), "same edges, other colours": (0, True)}
    return measure(name, crowd(*crowds[name]))


CASES = (
    "random blocks",
    "smooth",
    "photographs of clothes",
    "equal",
    "noisy copies of one",
    "same edges, other colours",
    "photographs on white",
)


def main(argv: Sequence[str] | None = None) -> list[Case]:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=int, default=1_000_000, help="pictures of the first two cases")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args(argv)
    columns = ("links", "copies found", "links s", "assign s", "check s", "CPU s", "peak MB")
    print(f"{'case':26} {'pictures':>10} {'{:>11} {:>15} {:>8} {:>8} {:>8} {:>8} {:>8}'.format(*columns)}")
    cases: list[Case] = []
    for name in arguments.cases:
        if name.startswith("photographs") and not (CLOTHING / "images").is_dir():
            print(f"{name}: left out, there is no {CLOTHING / 'images'}; set VLM_CLOTHING")
            continue
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            case = pool.apply(run_case, (name, arguments.hashes))
        cases.append(case)
        found = f"{case.found:,}/{case.planted:,}" if case.planted else "-"
        print(
            f"{case.name:26} {case.pictures:>10,} {case.links:>11,} {found:>15} {case.link_seconds:>8} "
            f"{case.assign_seconds:>8} {case.check_seconds:>8} {case.cpu_seconds:>8} {case.peak_mb:>8,.0f}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
    return cases


if __name__ == "__main__":
    main()
