"""The data stage's speed and memory, as ratios measured in one run; prints a table and writes JSON.

    python -m tests.benchmarks.bench_data                       # about half an hour on 2 quiet cores
    python -m tests.benchmarks.bench_data --quick --json d.json # minutes: fewer pictures, the same questions
    python -m tests.benchmarks.bench_data --only decode reader

Photographs are those of the clothing set (VLM_CLOTHING), 400 px wide, and mosaics of them of 1,600 px, as large as
uploads from phones; without the set, drawn ones. Speeds are per core: pictures by CPU second of all processes. Each
measurement runs in a process of its own. Nothing here fails for being slow: the figures go to docs/benchmarks.md,
reached or not.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image, ImageDraw

from tests.integration.data.clothing import CLOTHING
from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from vlm_assets.data.shard_reader import ShardReader
from vlm_assets.data.shards import ShardSettings, shard_paths, write_shards
from vlm_serving.bundle import open_bundle
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import PreprocessingContract, decode_for_model, model_pixels

SIDE_PX = 384  # BLIP's own
PHONE_PX = 1600
MB = 1e6
CAPTION = ("a woman in a long green dress", "a dress")
Log = Callable[[str], object]


@dataclass(frozen=True)
class Figure:
    """One line of the table. `goal` in the unit of `value`; None where there is none."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = False
    detail: str = ""

    @property
    def reached(self) -> str:
        """Against the goal."""
        if self.goal is None:
            return ""
        return "yes" if (self.value <= self.goal if self.at_most else self.value >= self.goal) else "NO"


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path, default=Path("bench-data.json"), help="write the figures here")
    parser.add_argument("--work", type=Path, help="directory for what is generated (default: a temporary one)")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    figures: list[Figure] = []
    print(f"{os.cpu_count()} cores, load {load:.1f} before; {'clothing photographs' if _photographs() else 'drawings'}")
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for name in options.only:
            for figure in PARTS[name](Path(folder) / name, options.quick):
                figures.append(figure)
                goal = f"{'<=' if figure.at_most else '>='} {figure.goal:g}" if figure.goal is not None else ""
                print(
                    f"{figure.name:58} {figure.value:>10,.2f} {figure.unit:14} {goal:>9} {figure.reached:3}"
                    f"  {figure.detail}",
                    flush=True,
                )
            shutil.rmtree(Path(folder) / name, ignore_errors=True)
    document = {"load_before": load, "load_after": os.getloadavg()[0], "quick": options.quick,
                "figures": [asdict(figure) | {"reached": figure.reached} for figure in figures]}  # fmt: skip
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(f"load {os.getloadavg()[0]:.1f} after; figures in {options.json}")
    return figures


# -- decoding ----------------------------------------------------------------------------------------------------------


def bench_decode(path: Path, quick: bool) -> list[Figure]:
    """Difference from stock preprocessing, and speed beside full decoding, for two models and two kinds of pictures."""
    from transformers import BlipImageProcessorPil

    figures: list[Figure] = []
    for side_px in (96, SIDE_PX):
        contract = open_bundle(tiny_bundle(path / f"bundle-{side_px}", image_size_px=side_px)).contract
        stock = BlipImageProcessorPil(size={"height": side_px, "width": side_px})
        for kind, pictures in (("400 px", small(40 if quick else 200)), ("1600 px", phone(20 if quick else 60))):
            differences = [_difference(data, contract, stock) for data in pictures]
            fast_s = _cpu(partial(_each, partial(decode_for_model, contract=contract), pictures))
            full_s = _cpu(partial(_each, partial(_decode_fully, contract=contract), pictures))
            label = f"decode, {kind} JPEG to {side_px} px"
            worst = f"worst picture {max(differences):.2f}"
            mean = float(np.mean(differences))
            figures.append(Figure(f"{label}: off BlipProcessor", mean, "of 255 levels", 1.0, True, worst))
            times = f"{1000 * fast_s / len(pictures):.2f} ms, full {1000 * full_s / len(pictures):.2f} ms"
            figures.append(Figure(f"{label}: against full decoding", full_s / fast_s, "x", detail=times))
    return figures


def _difference(data: bytes, contract: PreprocessingContract, stock: Any) -> float:
    """Mean absolute difference of the model's input from the stock processor's, in levels of 0..255."""
    theirs = stock(Image.open(io.BytesIO(data)).convert("RGB"), return_tensors="np")["pixel_values"][0]  # (3, H, W)
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (contract.mean, contract.std))
    ours = (decode_for_model(data, contract).pixels / 255 - mean) / std
    return float(np.abs((ours - theirs) * std).mean() * 255)


def _decode_fully(data: bytes, contract: PreprocessingContract) -> None:
    model_pixels(decode_picture(data), contract)


def _each(work: Callable[[bytes], object], pictures: Sequence[bytes]) -> None:
    for data in pictures:
        work(data)


# -- building ----------------------------------------------------------------------------------------------------------


def bench_build(path: Path, quick: bool) -> list[Figure]:
    """Shards beside `datasets.map` with the stock BlipProcessor, on the same pictures, one process and thread each."""
    figures: list[Figure] = []
    for kind, pictures in (("400 px", small(400 if quick else 2000)), ("1600 px", phone(150 if quick else 600))):
        inputs = path / kind.replace(" ", "")
        raw, splits = write_inputs(inputs, pictures, [CAPTION] * len(pictures), 32 * 1024 * 1024)
        bundle = tiny_bundle(inputs / "bundle", image_size_px=SIDE_PX)
        stock = _apart(stock_build, raw, bundle, inputs / "stock")
        for encoding in ("png", "jpeg", "raw"):
            out = inputs / f"shards-{encoding}"
            ours = _apart(our_build, splits, raw, bundle, out, encoding)
            size = sum(file.stat().st_size for file in out.glob("*.parquet")) / ours[1] / 1000
            detail = f"{ours[0]:.0f} and {stock[0]:.0f} pictures/s per core; {size:.0f} kB a picture"
            name = f"build, {kind}, {encoding}: against datasets.map"
            figures.append(Figure(name, ours[0] / stock[0], "x per core", 3.0, detail=detail))
            shutil.rmtree(out)
        shutil.rmtree(inputs)
    return figures


def stock_build(raw: Path, bundle: Path, out: Path) -> tuple[float, int]:
    """(pictures by CPU second, pictures) of the way that Hugging Face's course shows."""
    import datasets
    import torch
    from datasets import load_dataset
    from transformers import AutoTokenizer, BlipImageProcessorPil, BlipProcessor

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    data = load_dataset("parquet", data_files=str(raw / "pictures-*.parquet"), split="train", cache_dir=str(out))
    size = {"height": SIDE_PX, "width": SIDE_PX}
    processor = BlipProcessor(BlipImageProcessorPil(size=size), AutoTokenizer.from_pretrained(bundle))

    def process(batch: dict[str, list[Any]]) -> Any:
        images = [image.convert("RGB") for image in batch["image"]]
        return processor(images=images, text=[CAPTION[0]] * len(images), padding=True, return_tensors="np")

    started_s = _cpu_now()
    made = data.map(process, batched=True, batch_size=32, remove_columns=data.column_names, load_from_cache_file=False)
    return len(made) / (_cpu_now() - started_s), len(made)


def our_build(splits: Path, raw: Path, bundle: Path, out: Path, encoding: Any, workers: int = 1) -> tuple[float, int]:
    """(pictures by CPU second, pictures) of write_shards in this process, libraries loaded as for the other side."""
    import tokenizers  # noqa: F401

    out.mkdir(parents=True)
    started_s = _cpu_now()
    settings = ShardSettings(encoding, workers=workers)
    count = sum(write_shards(splits, raw, bundle, out, _quiet, settings).values())
    return count / (_cpu_now() - started_s), count


# -- workers and memory ------------------------------------------------------------------------------------------------


def bench_workers(path: Path, quick: bool) -> list[Figure]:
    """Wall time of two processes beside one, start included."""
    pictures = small(1500 if quick else 6000)
    raw, splits = write_inputs(path, pictures, [CAPTION] * len(pictures), 32 * 1024 * 1024)
    bundle = tiny_bundle(path / "bundle", image_size_px=SIDE_PX)
    seconds: dict[int, float] = {}
    for workers in (1, 2):
        out = path / f"out{workers}"
        out.mkdir()
        started_s = time.perf_counter()
        settings = ShardSettings(shard_bytes=24 * 1024 * 1024, workers=workers)
        write_shards(splits, raw, bundle, out, _quiet, settings)
        seconds[workers] = time.perf_counter() - started_s
        shutil.rmtree(out)
    detail = f"{len(pictures):,} pictures, {seconds[1]:.1f} s and {seconds[2]:.1f} s"
    return [Figure("workers: two against one", seconds[1] / seconds[2], "x wall", 1.8, detail=detail)]


def bench_memory(path: Path, quick: bool) -> list[Figure]:
    """Peak memory of parent and workers together, for one and for ten times as many pictures."""
    few, many = (2000, 20_000) if quick else (5000, 50_000)
    some = small(200)
    peaks: dict[int, float] = {}
    for count in (few, many):
        inputs = path / str(count)
        raw, splits = write_inputs(inputs, [some[n % len(some)] for n in range(count)], [CAPTION] * count, 64 * 1024**2)
        bundle = tiny_bundle(inputs / "bundle", image_size_px=96)
        peaks[count] = _apart(build_watched, splits, raw, bundle, inputs / "out")
        shutil.rmtree(inputs)
    detail = f"{peaks[few]:,.0f} MB with {few:,} pictures, {peaks[many]:,.0f} MB with {many:,}; 2 workers, 96 px"
    return [Figure("memory: peak at ten times the pictures", peaks[many] / peaks[few], "x", 1.1, True, detail)]


def build_watched(splits: Path, raw: Path, bundle: Path, out: Path) -> float:
    """Peak of the summed memory of this process and its children, in MB; shared pages count once (PSS)."""
    out.mkdir()
    peak, over = [0.0], threading.Event()
    me = psutil.Process()

    def watch() -> None:
        while not over.wait(0.2):
            total = 0.0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss / MB
                except psutil.Error:
                    continue
            peak[0] = max(peak[0], total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    write_shards(splits, raw, bundle, out, _quiet, ShardSettings(shard_bytes=8 * 1024 * 1024, workers=2))
    over.set()
    watcher.join()
    return peak[0]


# -- reading -----------------------------------------------------------------------------------------------------------


def bench_reader(path: Path, quick: bool) -> list[Figure]:
    """Pictures by CPU second out of the reader, shuffled, from the page cache; and the bound set by decoding alone."""
    count = 600 if quick else 2000
    pictures = small(count)
    raw, splits = write_inputs(path, pictures, [CAPTION] * count, 32 * 1024 * 1024)
    bundle = tiny_bundle(path / "bundle", image_size_px=SIDE_PX)
    figures: list[Figure] = []
    for encoding, goal in (("raw", 2000.0), ("png", None), ("jpeg", None)):
        out = path / f"shards-{encoding}"
        out.mkdir()
        write_shards(splits, raw, bundle, out, _quiet, ShardSettings(encoding, workers=2))
        alone, batched, bound = (_apart(read_all, out, encoding, how) for how in ("alone", "batched", "decode"))
        detail = f"stacked into batches (B, 3, H, W): {batched:,.0f}; decoding alone, nothing read: {bound:,.0f}"
        figures.append(Figure(f"reader, {SIDE_PX} px {encoding}", alone, "pictures/s/core", goal, detail=detail))
        shutil.rmtree(out)
    return figures


def read_all(shards: Path, encoding: str, how: str) -> float:
    """Pictures by CPU second, the second of two epochs."""
    from vlm_assets.data.encoding import decode_pixels
    from vlm_assets.data.tables import read_rows

    if how == "decode":
        data = [row["image"]["bytes"] for row in read_rows(shard_paths(shards, "train")[0], ["image"])][:300]
        return len(data) / _cpu(lambda: [decode_pixels(one).copy() for one in data])
    reader = ShardReader(shard_paths(shards, "train"), threads=0 if encoding == "raw" else 1)

    def epoch() -> None:
        batch: list[Any] = []
        for sample in reader:
            if how == "alone":
                int(sample.pixels[0, 0, 0])
                continue
            batch.append(sample.pixels)
            if len(batch) == 32:
                np.stack(batch)
                batch.clear()

    epoch()
    return len(reader) / _cpu(epoch)


# -- the other scripts of the stage ------------------------------------------------------------------------------------


def bench_dedup(path: Path, quick: bool) -> list[Figure]:
    """Clustering of a million hashes; see bench_dedup.py."""
    from tests.benchmarks import bench_dedup as script

    path.mkdir(parents=True)
    cases = script.main(["--hashes", "50000" if quick else "1000000"])
    return [
        Figure(
            f"dedup, {case.name}",
            case.link_seconds + case.assign_seconds,
            "s",
            detail=f"{case.pictures:,} pictures, {case.found:,} of {case.planted:,} copies, {case.peak_mb:,.0f} MB",
        )
        for case in cases
    ]


def bench_coco(path: Path, quick: bool) -> list[Figure]:
    """Import of COCO captions: five a picture, small pictures, so that the rows are what costs."""
    rows = 5000 if quick else 50_000
    write_coco(path, rows // 5)
    seconds, peak_mb = _apart(import_coco, path)
    detail = f"{rows:,} captions of {rows // 5:,} pictures, peak {peak_mb:,.0f} MB"
    return [Figure("import of COCO captions", rows / seconds, "captions/s", detail=f"{detail}, {seconds:.1f} s")]


def write_coco(path: Path, count: int) -> None:
    """captions_train2017.json and its pictures."""
    (path / "train2017").mkdir(parents=True)
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 64, "height": 48} for n in range(count)]
    annotations = [
        {"id": 5 * n + k, "image_id": n, "caption": f"picture {n} told in way {k}"}
        for n in range(count)
        for k in range(5)
    ]
    (path / "captions_train2017.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    for n, image in enumerate(images):
        blocks = np.random.default_rng(n).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((64, 48)).save(path / "train2017" / str(image["file_name"]))


def import_coco(path: Path) -> tuple[float, float]:
    """(seconds, peak MB) of import_source."""
    from vlm_assets.data.raw import import_source
    from vlm_assets.data.sources.coco import CocoConfig

    out = path / "out"
    out.mkdir()
    started_s = time.perf_counter()
    import_source(CocoConfig(path=str(path)).open(), out, max_bad_fraction=0.0, log=_quiet)
    return time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


# -- pictures and clocks -----------------------------------------------------------------------------------------------


def _photographs() -> list[Path]:
    return sorted(file for file in (CLOTHING / "images").glob("*.jpg") if file.stat().st_size)


def small(count: int) -> list[bytes]:
    """Photographs of about 400 x 533 px, spread over the set; drawings where there is none."""
    files = _photographs()
    if not files:
        return [_drawn(seed, (400, 533)) for seed in range(count)]
    chosen = [files[place] for place in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int)]
    good = [data for data in (file.read_bytes() for file in chosen) if _decodes(data)]
    return [good[number % len(good)] for number in range(count)]


def phone(count: int) -> list[bytes]:
    """Mosaics of 3 x 3 photographs, 1,200 x 1,600 px: as large as an upload, and sharp down to the pixel."""
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").resize((400, 533)) for data in small(60)]
    made: list[bytes] = []
    for seed in range(min(count, 40)):
        chance, sheet = random.Random(seed), Image.new("RGB", (1200, PHONE_PX), "white")
        for place in range(9):
            sheet.paste(chance.choice(pictures), (400 * (place % 3), 533 * (place // 3)))
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return [made[number % len(made)] for number in range(count)]


def _drawn(seed: int, size_px: tuple[int, int]) -> bytes:
    chance, picture = random.Random(seed), Image.effect_noise(size_px, 30).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = chance.randrange(size_px[0]), chance.randrange(size_px[1])
        draw.ellipse((x, y, x + 90, y + 120), fill=tuple(chance.randrange(256) for _ in range(3)))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _decodes(data: bytes) -> bool:
    try:
        decode_picture(data)
    except Exception:
        return False
    return True


def _apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work` in a fresh process: its memory and its caches are its own."""
    receiver, sender = multiprocessing.Pipe(False)
    process = multiprocessing.get_context("spawn").Process(target=_send, args=(sender, partial(work, *arguments)))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _send(sender: Any, work: Callable[[], Any]) -> None:
    sender.send(work())


def _cpu_now() -> float:
    """CPU seconds of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _cpu(work: Callable[[], object]) -> float:
    started_s = _cpu_now()
    work()
    return _cpu_now() - started_s


def _quiet(_: str) -> None:
    """No progress: the table is what counts."""


PARTS: dict[str, Callable[[Path, bool], list[Figure]]] = {
    "decode": bench_decode,
    "build": bench_build,
    "workers": bench_workers,
    "memory": bench_memory,
    "reader": bench_reader,
    "dedup": bench_dedup,
    "coco": bench_coco,
}

if __name__ == "__main__":
    main()
