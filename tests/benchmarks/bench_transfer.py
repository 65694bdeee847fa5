"""What the base is worth: the fine-tuned model of the store beside the same network trained from nothing, same steps.

Run `make demo` first, then `make bench-transfer`. Prints every figure with n and its 95 % interval, from one run.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from vlm_assets.contracts import ArtifactRef
from vlm_assets.evaluation.predict import caption_split
from vlm_assets.evaluation.scores import score_captions
from vlm_assets.evaluation.significance import paired_difference
from vlm_assets.resources import StoreResource
from vlm_assets.store import Store
from vlm_assets.training.batches import mix, read_examples
from vlm_assets.training.bundling import UNSEALED, write_model
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.trainer import train
from vlm_serving.bundle import Bundle, open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.model import build_mini, load_model

SHOWN = ("cider", "bleu_4", "rouge_l", "exact_match")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, help="train both anew with this many steps, not the stored model's")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    store = StoreResource().open()
    shards, tuned, base = (directory(store, name) for name in ("tokenized_shards", "finetuned_model", "base_model"))
    tests = sorted(shards.glob("test-*.parquet"))
    start = open_bundle(base / "bundle")
    config = FinetuneConfig(**recipe(store, "finetuned_model"))
    settings = config.settings()
    if options.steps:
        settings = replace(settings, steps=options.steps, epochs=0.0)
    with tempfile.TemporaryDirectory() as folder:
        scratch = from_nothing(store, start, shards, settings, Path(folder))
        stored = open_bundle(tuned / "bundle")
        again = from_base(start, base, shards, settings, config.replay_share, Path(folder)) if options.steps else stored
        captioners = {
            "fine-tuned": Captioner(again),
            "from scratch": Captioner(scratch),
            "base, zero-shot": Captioner(start),
        }
        scores = {}
        for name, captioner in captioners.items():
            table = caption_split(captioner, tests, 32, print, label=name)
            scores[name] = score_captions(table["caption"].to_pylist(), table["references"].to_pylist())
    print(f"\n{settings.steps} steps each, test split, n = {scores['fine-tuned'].metrics['cider'].n}; 95 % intervals")
    for name, score in scores.items():
        figures = (score.metrics[metric] for metric in SHOWN)
        print(
            f"{name:16}",
            "  ".join(f"{m} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for m, e in zip(SHOWN, figures, strict=True)),
        )
    for metric in ("cider", "exact_match"):
        gap = paired_difference(scores["fine-tuned"].items[metric], scores["from scratch"].items[metric])
        print(f"fine-tuned minus from scratch, {metric}: {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]")
    if options.json:
        options.json.write_text(json.dumps({name: score.to_json() for name, score in scores.items()}, indent=1))


def from_base(start: Bundle, base: Path, shards: Path, settings, replay_share: float, folder: Path) -> Bundle:
    """Fine-tune as `finetuned_model` does, replay included."""
    niche = read_examples(sorted(shards.glob("train-*.parquet")))
    replay = read_examples(sorted((base / "general").glob("train-*.parquet")))
    val_pairs = read_examples(sorted(shards.glob("val-*.parquet")))
    model = load_model(start.path)
    train(model, mix(niche, replay, replay_share), val_pairs, start.contract, settings, folder / "tuned-scratch", print)
    out = folder / "tuned"
    out.mkdir()
    return Bundle(out, UNSEALED, write_model(out, model, Captioner(start).tokenizer, start.contract))


def from_nothing(store: Store, start: Bundle, shards: Path, settings, folder: Path) -> Bundle:
    """The same architecture, tokenizer, pictures and steps; random weights; no replay, which would be pretraining."""
    shape = recipe(store, "base_model")["start"]
    assert shape["kind"] == "blip_mini", "the comparison is about blip-mini"
    captioner = Captioner(start)
    contract = start.contract
    ids = {
        "bos_token_id": contract.bos_token_id,
        "eos_token_id": contract.eos_token_id,
        "pad_token_id": contract.pad_token_id,
    }
    sizes = {name: value for name, value in shape.items() if name not in ("kind", "vocab_size", "pretrain")}
    model = build_mini(vocab_size=len(captioner.tokenizer), seed=settings.seed, **sizes, **ids)
    train_pairs, val_pairs = (read_examples(sorted(shards.glob(f"{name}-*.parquet"))) for name in ("train", "val"))
    started_s = time.monotonic()
    train(model, mix(train_pairs, [], 0.0), val_pairs, contract, settings, folder / "scratch", print)
    print(f"trained from nothing in {time.monotonic() - started_s:.0f} s")
    out = folder / "bundle"
    out.mkdir()
    return Bundle(out, UNSEALED, write_model(out, model, captioner.tokenizer, contract))


def recipe(store: Store, name: str) -> dict:
    return store.manifest(reference(store, name))["recipe"]["config"]


def directory(store: Store, name: str) -> Path:
    return store.directory(reference(store, name))


def reference(store: Store, name: str) -> ArtifactRef:
    text = store.backend.read_text(f"refs/{name}/last.json")
    if text is None:
        raise SystemExit(f"{store.uri} holds no {name} yet: run `make demo` first.")
    return ArtifactRef.from_json(json.loads(text))


if __name__ == "__main__":
    main()
