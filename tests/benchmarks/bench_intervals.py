"""How often an interval says "surely better" where nothing is better: its level, on the differences that a gate meets.

    python -m tests.benchmarks.bench_intervals            # 500 draws per cell, four minutes

Every population has mean 0, so a lower end above 0 is an error, and 2.5 % of draws may have one. Differences of caption
scores are skewed to the left where a new model gains a little on most pictures and loses much on a few.
"""

import argparse
from collections.abc import Callable

import numpy as np

from vlm_assets.evaluation.corpus import Floats
from vlm_assets.evaluation.significance import bootstrap_mean, paired_difference

Draw = Callable[[np.random.Generator, int], tuple[Floats, list[str]]]
CLUSTERS = (5, 10, 20, 30, 70, 200)


def alone(values: Callable[[np.random.Generator, int], Floats]) -> Draw:
    """Pictures that are independent of each other."""
    return lambda generator, count: (values(generator, count), [str(row) for row in range(count)])


def by_sender(generator: np.random.Generator, count: int) -> tuple[Floats, list[str]]:
    """As in the clothing set: a few senders have many pictures, and what they have in common weighs as much."""
    sizes = np.maximum(1, np.round(generator.lognormal(np.log(3), 1, size=count))).astype(int)
    shared = np.repeat(generator.normal(size=count), sizes)
    values = shared + 1 - generator.exponential(size=len(shared))
    return values, np.repeat([str(sender) for sender in range(count)], sizes).tolist()


POPULATIONS: dict[str, Draw] = {
    "normal": alone(lambda generator, count: generator.normal(size=count)),
    "skewed (1 - exponential)": alone(lambda generator, count: 1 - generator.exponential(size=count)),
    "very skewed (1 - gamma of shape 1/4)": alone(lambda generator, count: 1 - generator.gamma(0.25, 4, size=count)),
    "heavy tail (- lognormal)": alone(lambda generator, count: np.exp(0.5) - generator.lognormal(size=count)),
    "0 or 1, 95 % ties": alone(
        lambda generator, count: generator.choice([-1.0, 0.0, 1.0], count, p=[0.025, 0.95, 0.025])
    ),
    "0 or 1, 80 % ties": alone(lambda generator, count: generator.choice([-1.0, 0.0, 1.0], count, p=[0.1, 0.8, 0.1])),
    "by sender, pictures resampled": lambda generator, count: (by_sender(generator, count)[0], []),
    "by sender, senders resampled": by_sender,
}


def errors(draw: Draw, count: int, draws: int) -> tuple[float, float]:
    """Shares of draws that are "surely better": by the percentile interval, by ours."""
    generator, wrong = np.random.default_rng(0), np.zeros(2)
    for seed in range(draws):
        values, labels = draw(generator, count)
        kin = labels or None
        wrong[0] += bootstrap_mean(values, clusters=kin, seed=seed).low > 0
        wrong[1] += paired_difference(values, np.zeros_like(values), clusters=kin, seed=seed).low > 0
    percentile, ours = (wrong / draws).tolist()
    return percentile, ours


def main() -> None:
    """Print a Markdown table: by population and number of independent pictures, percentile / bootstrap-t."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    draws: int = parser.parse_args().draws
    print("| differences | " + " | ".join(f"{count}" for count in CLUSTERS) + " |")
    print("|---" * (len(CLUSTERS) + 1) + "|")
    for name, draw in POPULATIONS.items():
        cells = ["{:.1f} / {:.1f}".format(*(100 * x for x in errors(draw, count, draws))) for count in CLUSTERS]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
