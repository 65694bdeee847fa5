"""How often drift detectors cry wolf, and how often they see the wolf: ours and Evidently's, on the same draws.

    python tests/benchmarks/bench_drift.py                         # 64 independent normal dimensions, ~2 minutes
    python tests/benchmarks/bench_drift.py --bundle PATH           # a bundle's reference: a real model, real pictures
    python tests/benchmarks/bench_drift.py --embeddings rows.npy   # any (n, d) array

Each cell is the share of draws that raise an alarm, with the number of draws; "-" where fewer than five fitted into the
cell's time. Draws of given embeddings are disjoint halves of them, so windows larger than half are left out.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm_assets.monitoring.drift import DRIFTED, Threshold, decide, mmd_permutation_test

Rows = NDArray[np.float64]
Draw = Callable[[int, int, np.random.Generator], tuple[Rows, Rows]]
Alarms = Callable[[Rows, Rows, int], tuple[bool, ...]]

DIMENSIONS = 64
SHIFT = 0.1  # of each dimension's standard deviation
WINDOWS = ((500, 50), (500, 100), (500, 500), (5000, 5000))  # (reference, window)
MIN_DRAWS = 5
EVIDENTLY_MMD_MAX_ROWS = 1000  # unlike ours it does not subsample: 3 s at 5,000 rows, 20 s with bootstrap
OUR_SHARE = 0.4  # of the time: rates near 1 % need many draws


@dataclass(frozen=True)
class Detector:
    """One or several alarms from one computation; `share` of the time of a cell."""

    names: tuple[str, ...]
    alarms: Alarms
    share: float
    max_rows: float = float("inf")  # larger windows are left out: one computation takes longer than a cell may


@dataclass(frozen=True)
class Cell:
    """Alarms of one detector at one window."""

    detector: str
    shifted: bool
    reference: int
    window: int
    draws: int
    alarms: int
    seconds_each: float

    def __str__(self) -> str:
        return f"{100 * self.alarms / self.draws:.1f} % ({self.draws})" if self.draws >= MIN_DRAWS else "-"


def ours(x: Rows, y: Rows, seed: int) -> tuple[bool, ...]:
    """The permutation test alone, and the verdict, which asks for a harmful effect as well."""
    test = mmd_permutation_test(x, y, seed=seed)
    return test.p_value <= Threshold().alpha, decide(test, Threshold()) == DRIFTED


def detectors() -> list[Detector]:
    """Ours and Evidently's embedding detectors, at their defaults and with the switches they offer."""
    import pandas as pd
    from evidently.metrics.embeddings import DistanceDriftMethod, MMDDriftMethod, ModelDriftMethod, RatioDriftMethod

    def evidently(method) -> Alarms:
        def alarms(x: Rows, y: Rows, seed: int) -> tuple[bool, ...]:
            np.random.seed(seed)
            reference, current = (pd.DataFrame(side).add_prefix("e") for side in (x, y))
            return (bool(method(current, reference)[1]),)

        return alarms

    theirs = {
        "Evidently model (AUC > 0.55)": ModelDriftMethod(),
        "Evidently model, bootstrap": ModelDriftMethod(bootstrap=True),
        "Evidently ratio": RatioDriftMethod(),
        "Evidently distance": DistanceDriftMethod(),
        "Evidently distance, bootstrap": DistanceDriftMethod(bootstrap=True),
        "Evidently MMD (> 0.015)": MMDDriftMethod(),
        "Evidently MMD, bootstrap": MMDDriftMethod(bootstrap=True),
        "Evidently MMD, bootstrap, q 0.95": MMDDriftMethod(bootstrap=True, quantile_probability=0.95),
    }
    share = (1 - OUR_SHARE) / len(theirs)
    return [
        Detector(("permutation MMD, p <= 0.01 (ours)", "... and effect >= 1 (our verdict)"), ours, OUR_SHARE),
        *(
            Detector((name,), evidently(method), share, EVIDENTLY_MMD_MAX_ROWS if "MMD" in name else float("inf"))
            for name, method in theirs.items()
        ),
    ]


def gaussian(n: int, m: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Two samples of N(0, I)."""
    return generator.normal(size=(n, DIMENSIONS)), generator.normal(size=(m, DIMENSIONS))


def halves_of(pool: Rows) -> Draw:
    """Draws of disjoint rows of a pool."""

    def draw(n: int, m: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
        rows = generator.permutation(len(pool))[: n + m]
        return pool[rows[:n]], pool[rows[n:]]

    return draw


def windows_of(pool: Rows | None) -> list[tuple[int, int]]:
    """The windows that the data can fill; reference sizes shrink to half of a small pool."""
    if pool is None:
        return list(WINDOWS)
    half = len(pool) // 2
    return [(min(n, len(pool) - m), m) for n, m in WINDOWS if m <= half]


def measure(
    detector: Detector, draw: Draw, size: tuple[int, int], shift: Rows, most: int, limit_s: float
) -> list[Cell]:
    """Alarms of a detector on fresh draws until there are `most` or the time is over."""
    generator = np.random.default_rng(20)  # the same draws for every detector
    counts, draws, started_s = np.zeros(len(detector.names), dtype=int), 0, time.perf_counter()
    if max(size) > detector.max_rows:
        most = 0
    while draws < most and time.perf_counter() - started_s < limit_s:
        x, y = draw(*size, generator)
        counts += detector.alarms(x, y + shift, draws)
        draws += 1
    each_s = (time.perf_counter() - started_s) / max(1, draws)
    shifted = bool(np.any(shift))
    return [
        Cell(name, shifted, *size, draws, int(count), each_s)
        for name, count in zip(detector.names, counts, strict=True)
    ]


def tables(cells: list[Cell], sizes: list[tuple[int, int]]) -> Iterator[str]:
    """Two Markdown tables: false alarms, and alarms at the shift."""
    for shifted, title in ((False, "False alarms (no drift)"), (True, f"Alarms at +{SHIFT} standard deviation each")):
        yield f"\n| {title} | " + " | ".join(f"{n} / {m}" for n, m in sizes) + " |"
        yield "|---" * (len(sizes) + 1) + "|"
        rows = [cell for cell in cells if cell.shifted == shifted]
        for name in dict.fromkeys(cell.detector for cell in rows):
            found = {(cell.reference, cell.window): str(cell) for cell in rows if cell.detector == name}
            yield f"| {name} | " + " | ".join(found[size] for size in sizes) + " |"


def read_pool(options: argparse.Namespace) -> Rows | None:
    """The embeddings asked for, (n, d), or None for the gaussian ones."""
    if options.embeddings:
        return np.load(options.embeddings).astype(np.float64)
    if options.bundle:
        from vlm_assets.monitoring.features import read_reference

        return read_reference(options.bundle).embeddings.astype(np.float64)
    return None


def main() -> None:
    """Measure, print the tables, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a bundle directory with reference.parquet")
    parser.add_argument("--embeddings", type=Path, help="an .npy file of (n, d) embeddings")
    parser.add_argument("--budget-s", type=float, default=120.0, help="time for all cells together")
    parser.add_argument("--draws", type=int, default=1000, help="at most so many per cell")
    parser.add_argument("--json", type=Path, default=Path("build/bench_drift.json"), help="where to write the numbers")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    pool = read_pool(options)
    sizes, draw = windows_of(pool), gaussian if pool is None else halves_of(pool)
    deviation = np.ones(DIMENSIONS) if pool is None else pool.std(axis=0)
    limit_s = options.budget_s / max(1, 2 * len(sizes))
    cells = [
        cell
        for detector in detectors()
        for size in sizes
        for shift in (0 * deviation, SHIFT * deviation)
        for cell in measure(detector, draw, size, shift, options.draws, limit_s * detector.share)
    ]
    what = (
        f"{DIMENSIONS} normal dimensions" if pool is None else f"{len(pool)} embeddings of {pool.shape[1]} dimensions"
    )
    print(f"{what}; reference / window rows; share of draws with an alarm (draws)")
    print("\n".join(tables(cells, sizes)))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1) + "\n")
    print(f"\nwritten: {options.json}")


if __name__ == "__main__":
    main()
