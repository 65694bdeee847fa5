"""How often drift detectors cry wolf, and how often they see the wolf: ours, Evidently's and Alibi's on the same draws.

    make demo && make bench-drift          # the released model of the store, OpenMoji drawings it was not trained on

Prints Markdown tables, writes build/bench_drift.json after every part and docs/pictures/drift-power.png. Draws are
random disjoint rows of a pool, so labels are exchangeable by construction; draws overlap in pictures, hence the rates
are a little less certain than their number says. `--parts` chooses among false, power, year.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.drift_pictures import HARMFUL, UNCHANGED, Pictures, Rows, load
from tests.benchmarks.drift_rivals import alibi, evidently
from vlm_assets.monitoring.alibi import DEFAULT_PYTHON, PYTHON_VARIABLE
from vlm_assets.monitoring.config import DriftConfig
from vlm_assets.monitoring.drift import DRIFTED, Threshold, decide, embedding_test
from vlm_assets.resources import StoreResource

ALPHA = 0.01
SEED = 2026
PERMUTATIONS = 1_999  # the smallest p is 0.001
REFERENCE = 200  # about a validation split; windows of 500 and 5,000 are compared by 500 of their rows
WINDOWS = (50, 100, 500, 5_000)
POWER_WINDOWS = (50, 100, 200, 400)
POWER_REFERENCE = 200
PLOTTED_WINDOW = 200
LABEL_LIFTS = (9, 0, -9, 9)  # points: harmless changes lie close together
YEAR_REFERENCE, YEAR_WINDOW = 53, 50  # the demo's own reference
PLOT = Path("docs/pictures/drift-power.png")
OURS, VERDICT = "ours, p <= 0.01", f"ours, verdict (and effect >= {Threshold().minimum_effect:g})"
Table = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Budget:
    """Draws of ours, and seconds for each cell of a rival."""

    draws: int
    power_draws: int
    rival_s: float


def draw(reference: Rows, traffic: Rows, n: int, m: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Disjoint random rows: `n` of the reference, `m` of the traffic, where row i is the same drawing in both."""
    rows = generator.permutation(len(reference))[: n + m]
    return reference[rows[:n]], traffic[rows[n:]]


def our_alarms(x: Rows, y: Rows, seed: int, permutations: int = PERMUTATIONS) -> tuple[bool, bool]:
    """By significance alone, and the verdict."""
    test = embedding_test(x, y, permutations=permutations, seed=seed)
    return test.p_value <= ALPHA, decide(test, Threshold(ALPHA)) == DRIFTED


def rate(alarms: list[bool]) -> dict[str, float]:
    """A share and of how many."""
    return {"alarms": sum(alarms), "draws": len(alarms)}


def false_alarms(pictures: Pictures, budget: Budget) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(detector, window, rate) without drift."""
    yield from at_windows(pictures.pool, pictures.pool, REFERENCE, WINDOWS, budget.draws, budget)


def flat_alarms(pictures: Pictures, budget: Budget) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(detector, window, rate) where traffic lost its outlines: what a detector is for."""
    sides = pictures.changed[UNCHANGED], pictures.changed["flat"]
    yield from at_windows(*sides, POWER_REFERENCE, (200,), budget.power_draws, budget)


def at_windows(
    reference: Rows, traffic: Rows, n: int, windows: tuple[int, ...], draws: int, budget: Budget
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """The same draws for every detector; a rival gets through as many as its time allows."""
    rivals, python = evidently(), Path(os.environ.get(PYTHON_VARIABLE) or DEFAULT_PYTHON)
    for m in windows:
        ours = [our_alarms(*each, seed) for seed, each in enumerate(fresh(reference, traffic, n, m, draws))]
        yield OURS, str(m), rate([one for one, _ in ours])
        yield VERDICT, str(m), rate([one for _, one in ours])
        if m > 500:
            continue  # several minutes each
        for name, alarm in rivals.items():
            started_s, alarms = time.perf_counter(), []
            for x, y in fresh(reference, traffic, n, m, draws):
                alarms.append(alarm(x, y))
                if time.perf_counter() - started_s > budget.rival_s:
                    break
            yield name, str(m), rate(alarms)
        if python.is_file():
            few = list(fresh(reference, traffic, n, m, 20))
            yield "Alibi Detect MMD (p < 0.05)", str(m), rate(alibi(python, few, budget.rival_s))


def fresh(reference: Rows, traffic: Rows, n: int, m: int, draws: int) -> Iterator[tuple[Rows, Rows]]:
    """The same draws at every call; others than those on which `minimum_effect` was chosen, which had seed 20."""
    generator = np.random.default_rng(SEED)
    return (draw(reference, traffic, n, m, generator) for _ in range(draws))


def power(pictures: Pictures, budget: Budget) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(change, window, shares of alarms) and the mean effect."""
    for name, changed in pictures.changed.items():
        for m in POWER_WINDOWS:
            sides = fresh(pictures.changed[UNCHANGED], changed, POWER_REFERENCE, m, budget.power_draws)
            tests = [embedding_test(x, y, permutations=499, seed=seed) for seed, (x, y) in enumerate(sides)]
            yield (
                name,
                str(m),
                {
                    "significant": float(np.mean([test.p_value <= ALPHA for test in tests])),
                    "drifted": float(np.mean([decide(test, Threshold(ALPHA)) == DRIFTED for test in tests])),
                    "effect": float(np.mean([test.effect_size for test in tests])),
                    "auc": float(np.mean([test.classifier_auc or 0.0 for test in tests])),
                    "draws": len(tests),
                    "cider": pictures.cider[name],
                },
            )


def year(pictures: Pictures, windows: int) -> Iterator[tuple[str, str, dict[str, float]]]:
    """A year of hourly windows against one reference, without drift: the real settings, as the asset uses them."""
    config, generator = DriftConfig(), np.random.default_rng(7)
    order = generator.permutation(len(pictures.pool))
    reference, rest = pictures.pool[order[:YEAR_REFERENCE]], order[YEAR_REFERENCE:]
    significant = drifted = confirmed = in_a_row = at_one_percent = 0
    for look in range(1, windows + 1):
        window = pictures.pool[generator.choice(rest, YEAR_WINDOW, replace=False)]
        test = embedding_test(reference, window, permutations=config.permutations, seed=look)
        at_one_percent += test.p_value <= ALPHA
        significant += test.p_value <= config.threshold(look).alpha
        in_a_row = in_a_row + 1 if decide(test, config.threshold(look)) == DRIFTED else 0
        drifted += in_a_row > 0
        confirmed += in_a_row >= config.confirm_windows
    counts = {"windows": windows, "p <= 0.01": at_one_percent, "p <= alpha of the look": significant}
    yield "year", str(windows), {**counts, "drifted": drifted, "confirmed": confirmed, "promised": config.alpha}


def year_alpha(pictures: Pictures, draws: int) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(change, window, verdicts) at n = 200 with what one window of a year may spend."""
    config = DriftConfig()
    for name in HARMFUL:
        sides = fresh(pictures.changed[UNCHANGED], pictures.changed[name], 200, 200, draws)
        tests = [embedding_test(x, y, permutations=config.permutations, seed=seed) for seed, (x, y) in enumerate(sides)]
        yield name, "200", rate([decide(test, config.threshold(1)) == DRIFTED for test in tests])


def markdown(cells: Table, first: str) -> str:
    """One row per name, one column per window."""
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    lines = [f"| {first} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in cells.items():
        lines.append(f"| {name} | {' | '.join(said(row[column]) if column in row else '-' for column in columns)} |")
    return "\n".join(lines)


def said(cell: dict[str, float]) -> str:
    """A cell as text."""
    if "alarms" in cell:
        return f"{100 * cell['alarms'] / cell['draws']:.1f} % ({cell['draws']})"
    if "significant" in cell:
        return f"{cell['significant']:.2f} / {cell['drifted']:.2f}, effect {cell['effect']:.2f}"
    return ", ".join(f"{name} {value:g}" for name, value in cell.items())


def plot(cells: Table, path: Path) -> None:
    """Left: what is significant, over the size of a window. Right: effect and cost, and what is called drift."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 3.9), dpi=100, layout="constrained")
    curves, places = figure.subplots(1, 2)
    for number, (name, row) in enumerate(cells.items()):
        shares = [row[str(m)]["significant"] for m in POWER_WINDOWS]
        sure = min(shares) >= 0.99
        if not sure:
            curves.plot(POWER_WINDOWS, shares, marker="o", ms=4, color=f"C{number}", label=name)
        cell = row[str(PLOTTED_WINDOW)]
        places.plot(cell["effect"], cell["cider"], "o", color=f"C{number}")
        lift = LABEL_LIFTS[number % len(LABEL_LIFTS)]
        where = {"xytext": (7, lift), "textcoords": "offset points"}
        places.annotate(name, (cell["effect"], cell["cider"]), fontsize=7, va="center", **where)
    sure = [name for name, row in cells.items() if min(row[str(m)]["significant"] for m in POWER_WINDOWS) >= 0.99]
    curves.plot(POWER_WINDOWS, [1.0] * len(POWER_WINDOWS), "k-", lw=3, alpha=0.4, label="\n".join(sure))
    curves.set(title="p ≤ 0.01", xlabel="pictures in the window", ylabel="share of draws", ylim=(-0.03, 1.05))
    curves.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    limit = Threshold().minimum_effect
    places.axvline(limit, color="0.4", lw=1, ls="--")
    places.text(
        limit * 1.06, 0.98, f"drift from {limit:g} on", fontsize=7, transform=places.get_xaxis_transform(), va="top"
    )
    places.set(title=f"{PLOTTED_WINDOW} pictures", xlabel="effect size", ylabel="CIDEr of the captions", xscale="log")
    places.set(xlim=(0.004, 250), ylim=(-0.4, 6.2))
    for axes in (curves, places):
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Measure part by part, print and keep each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store that `make demo` filled; default: that of DAGSTER_HOME")
    parser.add_argument("--parts", default="false,power,flat,alpha,year", help="which, by commas")
    parser.add_argument("--draws", type=int, default=2000, help="of the false alarms")
    parser.add_argument("--power-draws", type=int, default=100)
    parser.add_argument("--year-draws", type=int, default=12, help="at a year's alpha; each takes 10 s")
    parser.add_argument("--windows", type=int, default=8760, help="of the year")
    parser.add_argument("--rival-s", type=float, default=8.0, help="seconds for each cell of another detector")
    parser.add_argument("--json", type=Path, default=Path("build/bench_drift.json"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    store = options.store or Path(StoreResource().open().uri)
    pictures = load(store, options.json.with_suffix(".npz"))
    budget = Budget(options.draws, options.power_draws, options.rival_s)
    parts = {
        "false": ("False alarms", false_alarms(pictures, budget)),
        "power": ("Change", power(pictures, budget)),
        "flat": ("Alarms at flat", flat_alarms(pictures, budget)),
        "alpha": ("Verdict at a year's alpha", year_alpha(pictures, options.year_draws)),
        "year": ("A year without drift", year(pictures, options.windows)),
    }
    kept: dict[str, Table] = json.loads(options.json.read_text()) if options.json.is_file() else {}
    for part in options.parts.split(","):
        title, cells = parts[part]
        started_s, table = time.perf_counter(), {}
        for name, column, cell in cells:
            table.setdefault(name, {})[column] = cell
            kept[part] = table
            options.json.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"\n{markdown(table, title)}\n({time.perf_counter() - started_s:.0f} s)", flush=True)
    if "power" in kept:
        plot(kept["power"], PLOT)


if __name__ == "__main__":
    main()
