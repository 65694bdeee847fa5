#!/usr/bin/env python3
"""Two results of a benchmark as one table; fails where the newer one is worse: compare_benchmarks.py OLD.json NEW.json.

The files are those of tests/benchmarks/figures.py. Figures are matched by name and told by their medians. A figure that
is gone is a failure too: otherwise a benchmark that dies halfway would be one without regressions.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TOLERANCE = 0.25  # shared runners: the same commit differs by some 15 % from night to night
LESS_IS_BETTER = ("s", "ms", "kB", "MB", "bytes", "of 255 levels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if anything is worse by more than the tolerance or gone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help=f"as a share (default {TOLERANCE})")
    given = parser.parse_args(arguments)
    rows = compare(figures(given.old), figures(given.new), given.tolerance)
    width = max(len(row[0]) for row in rows)
    for name, old, new, change, verdict in rows:
        print(f"{name:{width}}  {old:>10}  {new:>10}  {change:>8}  {verdict}")
    bad = [row for row in rows if row[-1] in ("WORSE", "GONE")]
    print(f"{len(rows)} figures, {len(bad)} worse by more than {given.tolerance:.0%} or gone")
    return 1 if bad else 0


def figures(file: Path) -> dict[str, dict[str, Any]]:
    """The figures of a result by name. Exits with one line if the file is no result."""
    try:
        found = {one["name"]: one for one in json.loads(file.read_text())["figures"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{file} is no result of a benchmark: {error!r}") from error
    if not found:
        raise SystemExit(f"{file} holds no figures: the benchmark measured nothing.")
    return found


def compare(
    old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]], tolerance: float
) -> list[tuple[str, str, str, str, str]]:
    """Rows of name, old and new median, how much better (+) or worse (-), verdict."""
    rows: list[tuple[str, str, str, str, str]] = []
    for name in [*old, *(name for name in new if name not in old)]:
        before, now = old.get(name), new.get(name)
        if before is None or now is None:
            values = [f"{one['median']:.3g}" if one else "–" for one in (before, now)]
            rows.append((name, *values, "", "GONE" if now is None else "new"))
            continue
        gain = _gain(before, now)
        verdict = "WORSE" if gain < -tolerance else "better" if gain > tolerance else "same"
        rows.append((name, f"{before['median']:.3g}", f"{now['median']:.3g}", f"{gain:+.0%}", verdict))
    return rows


def _gain(before: dict[str, Any], now: dict[str, Any]) -> float:
    """By what share the new figure is better, negative if worse: half the speed and twice the time are both -50 %."""
    smaller_is_better = before["unit"] in LESS_IS_BETTER or (before["at_most"] and not before["at_least"])
    first, second = (now, before) if smaller_is_better else (before, now)
    return second["median"] / first["median"] - 1 if first["median"] else 0.0


if __name__ == "__main__":
    sys.exit(main())
