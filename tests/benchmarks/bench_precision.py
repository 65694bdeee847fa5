"""What bf16 costs and gives in captioning: CIDEr and speed of a bundle on a split, beside fp32.

    python -m tests.benchmarks.bench_precision --bundle DIR --shards 'DIR/test-*.parquet' [--rounds 3] [--threads 1]

DIR of a finished chain: `find $DAGSTER_HOME/store -name golden.json` shows the bundle, tokenized_shards the files.
"""

import argparse
import statistics
import time
from glob import glob
from pathlib import Path

import torch

from tests.benchmarks.bench_train import device_name
from vlm_assets.evaluation.cider import cider
from vlm_assets.evaluation.predict import caption_split
from vlm_assets.evaluation.tokenizer import tokenize
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner

GOAL = 0.005  # relative difference of CIDEr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--shards", required=True, help="pattern of the split's files")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    bundle, files = open_bundle(options.bundle), [Path(name) for name in sorted(glob(options.shards))]
    captioners = {
        precision: Captioner(bundle, precision=precision, threads=options.threads) for precision in ("fp32", "bf16")
    }
    times_s: dict[str, list[float]] = {name: [] for name in captioners}
    said: dict[str, list[str]] = {}
    references: list[list[str]] = []
    for _ in range(options.rounds + 1):  # the first warms up
        for name, captioner in captioners.items():
            started_s = time.perf_counter()
            table = caption_split(captioner, files, options.batch, lambda _: None)
            times_s[name].append(time.perf_counter() - started_s)
            said[name], references = table["caption"].to_pylist(), table["references"].to_pylist()
    judged = [tokenize(captions) for captions in references]
    scores = {name: cider(tokenize(captions), judged).corpus for name, captions in said.items()}
    print(f"{len(references)} pictures, batch {options.batch}, {bundle.generation}, on {device_name()}")
    for name, score in scores.items():
        rate = len(references) / statistics.median(times_s[name][1:])
        print(f"{name:5} CIDEr {score:.4f}  {rate:8.1f} captions/s")
    difference = abs(scores["bf16"] - scores["fp32"]) / scores["fp32"]
    equal = sum(one == other for one, other in zip(said["fp32"], said["bf16"], strict=True)) / len(references)
    verdict = "reached" if difference <= GOAL else "NOT reached"
    print(f"captions equal: {equal:.1%}; CIDEr differs by {difference:.2%}, goal {GOAL:.1%}: {verdict}")


if __name__ == "__main__":
    main()
