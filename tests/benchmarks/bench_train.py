"""Training speed: this project's training beside stock transformers (Hugging Face's model, processor and Trainer).

Both train BLIP from random weights on the same pictures and captions at the same batch and dtype, each in a process of
its own, by turns; prints pictures/s, MFU and peak memory (medians of the rounds), their ratios and how far the rounds
lie apart, and how fast batches are made where no picture is kept decoded. Needs only torch, transformers, numpy and
pillow, so it also runs on a bare GPU machine:

    python -m tests.benchmarks.bench_train [--model base|mini] [--batch 4, on a GPU 32] [--steps 8]
        [--dtype bf16] [--rounds 3] [--json FILE]
"""

import argparse
import io
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import BlipConfig, BlipForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments

from vlm_assets.training.batches import Collator, Example, PairDataset
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.trainer import loader_count, train
from vlm_serving.model import build_mini, use_fused_attention
from vlm_serving.preprocessing import PreprocessingContract, model_pixels

SPECIAL = {"bos_token_id": 30522, "eos_token_id": 102, "pad_token_id": 0}
MINI_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PICTURES = 64
WARM_UP_STEPS = 3
CPU_GOALS = {"pictures_per_s": ("at least", 1.3), "loader_to_step": ("at least", 1.2)}
GPU_GOALS = {
    "pictures_per_s": ("at least", 2), "mfu": ("at least", 0.4), "peak_bytes": ("at most", 0.6),
    "loader_to_step": ("at least", 1.2),
}  # fmt: skip
GPU_PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense, data sheets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("base", "mini"), default="base")
    parser.add_argument("--batch", type=int, default=32 if torch.cuda.is_available() else 4)
    parser.add_argument("--steps", type=int, default=8, help="timed steps, after 3 to warm up")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--rounds", type=int, default=3, help="each side is run so often, by turns")
    parser.add_argument("--compile", action="store_true", help="ours with the setting compile")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=tuple(VARIANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print("RESULT " + json.dumps(measure(options)))
        return
    rounds = [{name: in_its_own_process(options, name) for name in VARIANTS} for _ in range(options.rounds)]
    results = {name: medians([one[name] for one in rounds]) for name in VARIANTS}
    peak, flops = peak_flops(options.dtype), flops_per_picture(options.model)
    for result in results.values():
        result["mfu"] = result["pictures_per_s"] * flops / peak
    ratios = {key: results["ours"][key] / results["stock"][key] for key in ("pictures_per_s", "peak_bytes")}
    ratios["loader_to_step"] = results["ours"]["loader_pictures_per_s"] / results["ours"]["pictures_per_s"]
    apart = [one["ours"]["pictures_per_s"] / one["stock"]["pictures_per_s"] for one in rounds]
    print(
        f"{options.model}, batch {options.batch}, {options.dtype}, {options.steps} steps, {options.rounds} rounds, "
        f"on {device_name()}; {flops / 1e9:.1f} GFLOP per picture and step; peak {peak / 1e12:.2f} TFLOP/s"
    )
    print(f"{'':8} {'pictures/s':>11} {'MFU':>7} {'peak memory':>12}")
    for name, result in results.items():
        print(f"{name:8} {result['pictures_per_s']:11.2f} {result['mfu']:7.1%} {result['peak_bytes'] / 2**20:8.0f} MiB")
    goals = GPU_GOALS if torch.cuda.is_available() else CPU_GOALS
    print(f"speed, ours / stock: {ratios['pictures_per_s']:.2f} x (rounds {min(apart):.2f} to {max(apart):.2f})")
    print(f"memory, ours / stock: {ratios['peak_bytes']:.2f} x")
    print(f"batches made, nothing kept decoded: {results['ours']['loader_pictures_per_s']:.0f} pictures/s, "
          f"{ratios['loader_to_step']:.1f} x the step rate")  # fmt: skip
    figures = ratios | {"mfu": results["ours"]["mfu"]}
    for name, (kind, limit) in goals.items():
        verdict = figures[name] >= limit if kind == "at least" else figures[name] <= limit
        print(f"goal: {name} {kind} {limit}: {'reached' if verdict else 'NOT reached'}")
    if options.json:
        report = {"options": vars(options) | {"json": None}, "device": device_name(), "rounds": rounds}
        options.json.write_text(json.dumps(report | {"results": results, "ratios": ratios}, indent=1))


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.machine()}, {torch.get_num_threads()} threads"


def in_its_own_process(options: argparse.Namespace, name: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_train", "--only", name]
    for key in ("model", "batch", "steps", "dtype"):
        command += [f"--{key}", str(getattr(options, key))]
    command += ["--compile"] if options.compile else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(lines[0].removeprefix("RESULT "))


class Clock(TrainerCallback):
    """Notes when the warm-up was over and when the last step was. A GPU is waited for only then: else the CPU could
    not run ahead of it, as it does in training.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.started_s = self.seconds = 0.0

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        """After a step has been handed to the device."""
        if state.global_step not in (WARM_UP_STEPS, state.max_steps):
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step == WARM_UP_STEPS:
            self.started_s = time.perf_counter()
        else:
            self.seconds, self.steps = time.perf_counter() - self.started_s, state.global_step - WARM_UP_STEPS


def measure(options: argparse.Namespace) -> dict[str, Any]:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        VARIANTS[options.only](options, clock, Path(folder))
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    rates = {"pictures_per_s": options.batch * clock.steps / clock.seconds, "peak_bytes": peak}
    return rates | ({"loader_pictures_per_s": loader_rate(options)} if options.only == "ours" else {})


def loader_rate(options: argparse.Namespace) -> float:
    """Pictures/s from shard pictures to batches on the CPU, decoded at every look, by as many processes as training
    has there.
    """
    examples, contract = shard_examples(options)
    examples = examples * (1 + 40 * options.batch // len(examples)) if torch.cuda.is_available() else examples
    loaders = loader_count(len(os.sched_getaffinity(0)), 1)
    data: Any = PairDataset(examples, cache_bytes=0)
    batches = DataLoader(data, options.batch, collate_fn=Collator(contract), num_workers=loaders)
    started_s, count = time.perf_counter(), 0
    for number, batch in enumerate(batches):
        count += len(batch["labels"])
        if loaders and number == loaders - 1:  # the processes have started
            started_s, count = time.perf_counter(), 0
    return count / (time.perf_counter() - started_s)


def train_ours(options: argparse.Namespace, clock: Clock, folder: Path) -> None:
    """As `finetuned_model` does: pictures from shards, already at the model's size; threads and attention measured."""
    model = build(options.model)
    examples, contract = shard_examples(options)
    settings = TrainSettings(
        steps=WARM_UP_STEPS + options.steps, batch_size=options.batch, precision=options.dtype, learning_rate=1e-5,
        validation_pictures=0, compile=options.compile,
    )  # fmt: skip
    use_fused_attention(model)
    train(model, examples, [], contract, settings, folder, lambda _: None, callbacks=[clock])


def train_stock(options: argparse.Namespace, clock: Clock, folder: Path) -> None:
    """The published recipe: BlipImageProcessor on every look, labels are the ids, Trainer's own defaults."""
    from transformers import BlipImageProcessorPil

    model = build(options.model)
    side = int(model.config.vision_config.image_size)
    processor = BlipImageProcessorPil(size={"height": side, "width": side})
    data = [{"picture": picture, "ids": ids} for picture, ids in pairs(options.model, count(options))]

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pictures = [Image.open(io.BytesIO(row["picture"])).convert("RGB") for row in rows]
        ids = torch.tensor([row["ids"] for row in rows])
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}

    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=WARM_UP_STEPS + options.steps, per_device_train_batch_size=options.batch,
        bf16=options.dtype == "bf16", use_cpu=not torch.cuda.is_available(), remove_unused_columns=False,
        save_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    dataset: Any = data
    trainer = Trainer(model=model, args=arguments, data_collator=collate, train_dataset=dataset)
    trainer.add_callback(clock)
    trainer.train()


VARIANTS = {"stock": train_stock, "ours": train_ours}


def build(name: str) -> BlipForConditionalGeneration:
    """Random weights; stock attention."""
    if name == "mini":
        from vlm_serving.model import use_stock_attention

        return use_stock_attention(build_mini(vocab_size=4000, **MINI_SPECIAL))
    config = BlipConfig()
    config.vision_config.image_size = 384
    config.vision_config.initializer_range = 0.02
    return BlipForConditionalGeneration(config)


def count(options: argparse.Namespace) -> int:
    """A GPU trains on no picture twice: where an epoch ends, the loaders' queue is empty."""
    return options.batch * (WARM_UP_STEPS + options.steps) if torch.cuda.is_available() else PICTURES


def pairs(name: str, pictures: int = PICTURES) -> list[tuple[bytes, tuple[int, ...]]]:
    """Photograph-like JPEGs of 640 x 480 px with captions of 12 tokens."""
    generator = np.random.default_rng(0)
    special, high = (SPECIAL, 30000) if name == "base" else (MINI_SPECIAL, 3000)
    made: list[tuple[bytes, tuple[int, ...]]] = []
    for _ in range(pictures):
        small = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        words = tuple(int(x) for x in generator.integers(1000, high, 10))
        made.append((buffer.getvalue(), (special["bos_token_id"], *words, special["eos_token_id"])))
    return made


def shard_examples(options: argparse.Namespace) -> tuple[list[Example], PreprocessingContract]:
    special, side = (SPECIAL, 384) if options.model == "base" else (MINI_SPECIAL, 96)
    contract = PreprocessingContract(image_size_px=side, **special)
    with ThreadPoolExecutor() as pool:
        made = pairs(options.model, count(options))
        return [Example(*one) for one in pool.map(lambda pair: (shard_png(pair[0], contract), pair[1]), made)], contract


def shard_png(data: bytes, contract: PreprocessingContract) -> bytes:
    pixels = model_pixels(Image.open(io.BytesIO(data)).convert("RGB"), contract)
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def flops_per_picture(name: str) -> float:
    """Forward and backward of one picture with 12 tokens, counted on the stock model."""
    model = build(name)
    side = int(model.config.vision_config.image_size)
    ids = torch.tensor([pairs(name)[0][1]])
    with FlopCounterMode(display=False) as counter:
        model(pixel_values=torch.zeros(1, 3, side, side), input_ids=ids, labels=ids).loss.backward()
    return float(counter.get_total_flops())


def peak_flops(dtype: str) -> float:
    """The data sheet's rate for a known GPU, else the measured rate of a large matrix product."""
    if torch.cuda.is_available() and dtype == "bf16":
        for name, rate in GPU_PEAK_BF16.items():
            if name in torch.cuda.get_device_name():
                return rate
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 8192 if device == "cuda" else 2048
    kind = torch.bfloat16 if dtype == "bf16" else torch.float32
    one, other = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    best_s = float("inf")
    for _ in range(6):
        started_s = time.perf_counter()
        one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        best_s = min(best_s, time.perf_counter() - started_s)
    return 2 * size**3 / best_s


if __name__ == "__main__":
    main()
