"""A plot of the splits: what each holds, against the share that was asked for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_assets.data.previews import ACCENT, INK, PAPER, axes_of, save_figure
from vlm_assets.data.split import TEST, TRAIN, VAL, SplitPlan
from vlm_assets.data.tables import Row

UNITS = ("pictures", "captions", "clusters")
SHADES = (ACCENT, "#93b5d6", "#cddceb")


def contents(rows: Sequence[Row], splits: Sequence[str]) -> dict[str, list[int]]:
    """By unit: how many pictures, captions and clusters each split holds."""
    by_split: dict[str, list[Row]] = {name: [] for name in splits}
    for row in rows:
        by_split[row["split"]].append(row)
    members = list(by_split.values())
    return {
        "pictures": [len(own) for own in members],
        "captions": [sum(len(row["captions"]) for row in own) for own in members],
        "clusters": [len({row["cluster"] for row in own}) for own in members],
    }


def wanted_shares(splits: Sequence[str], plan: SplitPlan, held_out: float) -> dict[str, float]:
    """The share of all clusters that the plan means for each ordinary split, of what the holdouts leave."""
    shares = {TRAIN: plan.train_fraction, VAL: plan.val_fraction, TEST: plan.test_fraction}
    return {name: share * (1 - held_out) for name, share in shares.items() if name in splits}


def write_split_balance(path: Path, rows: Sequence[Row], counts: Mapping[str, int], plan: SplitPlan) -> None:
    """Three bars per split, in per cent of all pictures, captions and clusters, and a line where the plan wants it."""
    splits = list(counts)
    held = contents(rows, splits)
    totals = {unit: max(sum(numbers), 1) for unit, numbers in held.items()}
    ordinary = {TRAIN, VAL, TEST}
    outside = sum(number for name, number in zip(splits, held["clusters"], strict=True) if name not in ordinary)
    wanted = wanted_shares(splits, plan, outside / totals["clusters"])
    figure, axes = axes_of(height_inches=1.0 + 0.52 * len(splits))
    for number, (unit, shade) in enumerate(zip(UNITS, SHADES, strict=True)):
        places = [index + (number - 1) * 0.26 for index in range(len(splits))]
        shares = [100 * value / totals[unit] for value in held[unit]]
        bars = axes.barh(places, shares, height=0.24, color=shade, label=f"{unit} (n = {totals[unit]:,})")
        labels = axes.bar_label(bars, [f"{value:,}" for value in held[unit]], padding=3, fontsize=7, color=INK)
        for label in labels:
            label.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.5})  # the line must not cross a number
    for index, name in enumerate(splits):
        if name in wanted:
            share = 100 * wanted[name]
            axes.plot([share, share], [index - 0.42, index + 0.42], color=INK, linewidth=1.2)
    axes.plot([], [], color=INK, linewidth=1.2, label="wanted")
    axes.set_yticks(range(len(splits)), splits)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="per cent")
    axes.legend(frameon=False, fontsize=7, loc="lower right")
    save_figure(figure, path)
