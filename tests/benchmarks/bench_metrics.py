"""Caption metrics from text to scores: ours against pycocoevalcap (needs Java), on the same generated captions.

    .venv/bin/python tests/benchmarks/bench_metrics.py --n 40000

Both sides tokenize N candidates with 5 references each, then score BLEU, ROUGE-L and CIDEr. Ours is timed without
and with its 1,000 bootstrap resamples, which the other side does not have.
"""

import argparse
import contextlib
import io
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.golden.make_metrics_golden import sentence
from vlm_assets.evaluation.scores import Scores, score_captions

REFERENCES = 5


def captions(pictures: int) -> tuple[list[str], list[list[str]]]:
    chance = random.Random(0)
    # No full stop at the end: the reference's reading of "plan B." depends on the caption in its file's next line.
    references = [[sentence(chance).rstrip(" .") for _ in range(REFERENCES)] for _ in range(pictures)]
    candidates = [
        " ".join(word for word in texts[0].split() if chance.random() < 0.8).rstrip(" .") for texts in references
    ]
    return candidates, references


def reference_scores(candidates: list[str], references: list[list[str]]) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    results = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(candidates)})
    truths = PTBTokenizer().tokenize(
        {number: [{"caption": text} for text in texts] for number, texts in enumerate(references)}
    )
    bleu = Bleu(4).compute_score(truths, results, verbose=0)[0]
    rouge, cider = Rouge().compute_score(truths, results)[0], Cider().compute_score(truths, results)[0]
    return {**{f"bleu_{k + 1}": bleu[k] for k in range(4)}, "rouge_l": float(rouge), "cider": float(cider)}


@contextlib.contextmanager
def timed(label: str) -> Iterator[None]:
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        yield
    print(f"{label:<40} {time.perf_counter() - start:8.1f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=40_000, help="pictures (default 40,000)")
    candidates, references = captions(parser.parse_args().n)
    found: dict[str, Any] = {}
    runs: dict[str, Callable[[], Scores | dict[str, float]]] = {
        "ours, 1 resample": lambda: score_captions(candidates, references, resamples=1),
        "ours, 1,000 resamples": lambda: score_captions(candidates, references),
        "pycocoevalcap 1.2 (Java)": lambda: reference_scores(candidates, references),
    }
    for label, run in runs.items():
        with timed(label):
            found[label] = run()
    ours: Scores = found["ours, 1 resample"]
    for name, value in found["pycocoevalcap 1.2 (Java)"].items():
        mine = ours.metrics[name].value
        print(f"{name:<10} ours {mine:.12f}  reference {value:.12f}  difference {mine - value:+.1e}")


if __name__ == "__main__":
    main()
