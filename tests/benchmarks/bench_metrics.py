"""Caption metrics from text to scores: ours against pycocoevalcap (needs Java), on the same generated captions.

    .venv/bin/python -m tests.benchmarks.bench_metrics --n 40000

Both sides tokenize N candidates with 5 references each, then score BLEU-1..4, ROUGE-L and CIDEr-D; each in one process
of its own (pycocoevalcap starts Java as a second one). Wall time counts; CPU time, children included, says how much of
it was waiting for other work on the machine. With --rare, every third reference brings a word that no other has, so
that remembering what was read before helps less.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.golden.make_metrics_golden import sentence

REFERENCES = 5
GOAL = 10.0  # times faster
NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")
Texts = tuple[list[str], list[list[str]]]


@dataclass(frozen=True)
class Measured:
    """Seconds, and the scores of the corpus (6,) and of each caption (N, 6), in the order of NAMES."""

    wall_s: float
    cpu_s: float
    corpus: NDArray[np.float64]
    items: NDArray[np.float64]


def captions(pictures: int, *, rare: bool = False) -> Texts:
    """Candidates that are shortened copies of their first reference."""
    chance = random.Random(0)

    def written() -> str:
        # No full stop at the end: the reference's reading of "plan B." depends on the caption in its file's next line.
        text = sentence(chance).rstrip(" .")
        word = "".join(chance.choices(string.ascii_lowercase, k=8))
        return f"{word} {text}" if rare and chance.random() < 1 / 3 else text

    references = [[written() for _ in range(REFERENCES)] for _ in range(pictures)]
    candidates = [
        " ".join(word for word in texts[0].split() if chance.random() < 0.8).rstrip(" .") for texts in references
    ]
    # Nor a sign at the very end: the reference reads ":)" at the end of its file as another token than before a line.
    candidates[-1] = references[-1][-1] = "a dog"
    return candidates, references


def ours(candidates: list[str], references: list[list[str]]) -> tuple[Any, Any]:
    from vlm_assets.evaluation.coco import coco_scores

    found = coco_scores(candidates, references)
    corpus = [*found.bleu.corpus, found.rouge_l.corpus, found.cider.corpus]
    return corpus, np.column_stack([found.bleu.items, found.rouge_l.items, found.cider.items])


def ours_with_intervals(candidates: list[str], references: list[list[str]]) -> tuple[Any, Any]:
    """What a report asks for besides: exact matches, variety and the intervals of 1,000 bootstrap resamples."""
    from vlm_assets.evaluation.scores import score_captions

    found = score_captions(candidates, references)
    names = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider")
    return [found.metrics[name].value for name in names], np.empty((0, len(NAMES)))


def theirs(candidates: list[str], references: list[list[str]]) -> tuple[Any, Any]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    results = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(candidates)})
    truths = PTBTokenizer().tokenize(
        {number: [{"caption": text} for text in texts] for number, texts in enumerate(references)}
    )
    bleu, bleu_items = Bleu(4).compute_score(truths, results, verbose=0)
    rouge, rouge_items = Rouge().compute_score(truths, results)
    cider, cider_items = Cider().compute_score(truths, results)
    return [*bleu, rouge, cider], np.column_stack([*bleu_items, rouge_items, cider_items])


def measure(score: Callable[[list[str], list[list[str]]], tuple[Any, Any]], texts: Texts) -> Measured:
    """Run it once in a fresh process: imports, and memory that an earlier run left warm, count for nobody."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_timed, (score, texts))


def _timed(score: Callable[[list[str], list[list[str]]], tuple[Any, Any]], texts: Texts) -> Measured:
    score(["a dog runs fast"] * 2, [["a dog runs very fast"], ["two cats"]])  # imports
    before, start = os.times(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        corpus, items = score(*texts)
    wall_s, after = time.perf_counter() - start, os.times()
    return Measured(wall_s, sum(after[:4]) - sum(before[:4]), np.array(corpus, dtype=float), items)


def main() -> None:
    """Print times, the ratio against the goal, and the largest differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=40_000, help="pictures (default 40,000)")
    parser.add_argument("--rare", action="store_true", help="with words that only one caption has")
    options = parser.parse_args()
    texts = captions(options.n, rare=options.rare)
    print(f"{options.n:,} candidates x {REFERENCES} references", flush=True)
    runs = {"ours": ours, "ours with intervals": ours_with_intervals, "pycocoevalcap 1.2": theirs}
    found: dict[str, Measured] = {}
    for label, score in runs.items():
        found[label] = measure(score, texts)
        print(f"{label:<22} {found[label].wall_s:8.1f} s wall {found[label].cpu_s:8.1f} s CPU", flush=True)
    mine, reference = found["ours"], found["pycocoevalcap 1.2"]
    ratio = reference.wall_s / mine.wall_s
    verdict = "reached" if ratio >= GOAL else "not reached"
    print(f"ratio {ratio:.1f} x wall, {reference.cpu_s / mine.cpu_s:.1f} x CPU; goal {GOAL:g} x wall: {verdict}")
    apart = np.abs(mine.items - reference.items).max(axis=0)
    for name, a, b, worst in zip(NAMES, mine.corpus, reference.corpus, apart, strict=True):
        print(
            f"{name:<8} ours {a:.12f}  reference {b:.12f}  apart {abs(a - b):.1e}, of one caption at most {worst:.1e}"
        )


if __name__ == "__main__":
    main()
