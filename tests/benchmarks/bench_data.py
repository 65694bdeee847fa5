"""The data stage's speed and memory, as ratios measured in one run; prints a table and writes JSON.

    python -m tests.benchmarks.bench_data                       # about half an hour on 2 quiet cores
    python -m tests.benchmarks.bench_data --quick --json d.json # minutes: fewer pictures, once, the same questions
    python -m tests.benchmarks.bench_data --only decode reader

Photographs are those of the clothing set (VLM_CLOTHING), 400 px wide, and mosaics of them of 800 and 1,600 px, as
large as uploads; without the set, drawn ones. Speeds are per core: pictures by CPU second of all processes, and each
side has done a few pictures before its clock starts, so that nobody's imports count. Three times, and the median with
the least and the most; memory and duplicates once. Nothing here fails for being slow: the figures go to
docs/benchmarks.md, reached or not.
"""

import argparse
import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tests.benchmarks.figures import Figure, Report, apart, cpu_seconds, peak_mb, wall_seconds
from tests.integration.data.clothing import CLOTHING
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from vlm_assets.data.config import SplitConfig
from vlm_assets.data.raw import import_source
from vlm_assets.data.shard_reader import ShardReader
from vlm_assets.data.shards import ShardSettings, shard_paths, write_shards
from vlm_assets.data.sources.base import Attribution, Log, SourceRow, silent
from vlm_assets.data.sources.coco import CocoConfig
from vlm_assets.data.splits import write_splits
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import PreprocessingContract, decode_for_model, model_pixels
from vlm_serving.resizing import default_resizer

SIDE_PX = 384  # BLIP's own
REPEATS = 3
WARMING_UP = 24  # pictures
LEVEL = 1.0  # of 255: how far off the stock preprocessing a picture may be on the mean
FLAT = {"at_least": 0.9, "at_most": 1.1}  # memory at ten times the pictures
CAPTION = ("a woman in a long green dress", "a dress")


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, and each measurement once")
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--json", type=Path, default=Path("bench-data.json"), help="write the figures here")
    parser.add_argument("--work", type=Path, help="directory for what is generated (default: a temporary one)")
    options = parser.parse_args(argv)
    load, pictures = os.getloadavg()[0], "clothing photographs" if _photographs() else "drawings"
    print(f"{os.cpu_count()} cores, load {load:.1f} before; {pictures}")
    report = Report(options.json, {"load_before": load, "pictures": pictures, "quick": options.quick})
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for name in options.only:
            report.part(PARTS[name](Path(folder) / name, options.quick))
            shutil.rmtree(Path(folder) / name, ignore_errors=True)
    print(f"load {os.getloadavg()[0]:.1f} after; figures in {options.json}")
    return report.figures


def _repeated(measure: Callable[[], Any], quick: bool) -> list[Any]:
    return [measure() for _ in range(1 if quick else REPEATS)]


# -- decoding ----------------------------------------------------------------------------------------------------------


def bench_decode(path: Path, quick: bool) -> Iterator[Figure]:
    """Difference from stock preprocessing, and speed beside full decoding, for two sizes of model and of pictures."""
    from transformers import BlipImageProcessorPil

    for side_px in (96, SIDE_PX):
        contract = PreprocessingContract(side_px, 1, 2, 0, resizer=default_resizer())
        stock = BlipImageProcessorPil(size={"height": side_px, "width": side_px})
        kinds = {
            "400 px": small(40 if quick else 200),
            "800 px": mosaics(10 if quick else 40, 2),
            "1600 px": mosaics(10 if quick else 40, 3),
        }
        for kind, pictures in kinds.items():
            off = [_difference(data, contract, stock) for data in pictures]
            fast = partial(_each, partial(decode_for_model, contract=contract), pictures)
            full = partial(_each, partial(_decode_fully, contract=contract), pictures)
            times = _repeated(lambda fast=fast, full=full: (cpu_seconds(fast), cpu_seconds(full)), quick)
            label = f"decode, {kind} JPEG to {side_px} px"
            detail = f"mean of {len(off)} pictures {np.mean(off):.2f}; the worst is the criterion"
            yield Figure(f"{label}: worst off BlipProcessor", (max(off),), "of 255 levels", None, LEVEL, detail)
            fast_ms, full_ms = (1000 * float(np.median(one)) / len(pictures) for one in zip(*times, strict=True))
            ratios = tuple(whole / reduced for reduced, whole in times)
            yield Figure(
                f"{label}: against full decoding", ratios, "x", detail=f"{fast_ms:.2f} ms, full {full_ms:.2f} ms"
            )


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


def bench_build(path: Path, quick: bool) -> Iterator[Figure]:
    """Shards beside `datasets.map` with the stock BlipProcessor, on the same pictures, one process and thread each."""
    for kind, pictures in (("400 px", small(400 if quick else 2000)), ("1600 px", mosaics(150 if quick else 600, 3))):
        inputs = path / kind.replace(" ", "")
        places = _inputs(inputs, pictures)
        warm = _inputs(inputs / "warm", pictures[:WARMING_UP])
        stock = _repeated(lambda inputs=inputs, places=places: apart(stock_build, places, inputs / "stock"), quick)
        for encoding in ("png", "jpeg", "raw"):
            out = inputs / f"shards-{encoding}"
            ours = _repeated(
                lambda places=places, warm=warm, out=out, encoding=encoding: apart(
                    our_build, places, warm, out, encoding
                ),
                quick,
            )
            size = sum(file.stat().st_size for file in out.glob("*.parquet")) / _built(places) / 1000
            speeds = f"{np.median(ours):.0f} and {np.median(stock):.0f} pictures/s per core"
            ratios = tuple(one / other for one, other in zip(ours, stock, strict=True))
            name = f"build, {kind}, {encoding}: against datasets.map"
            yield Figure(name, ratios, "x per core", 3.0, detail=f"{speeds}; {size:.0f} kB a picture")
            shutil.rmtree(out)
        shutil.rmtree(inputs)


Places = dict[str, Path]


def _inputs(
    path: Path, pictures: Sequence[bytes], side_px: int = SIDE_PX, pack_bytes: int = 32 * 1024 * 1024
) -> Places:
    raw, splits = write_inputs(path, pictures, [CAPTION] * len(pictures), pack_bytes)
    return {"raw": raw, "splits": splits, "bundle": _bundle(path / "bundle", side_px)}


def _bundle(path: Path, side_px: int) -> Path:
    from tests.tiny import tiny_bundle  # torch comes with it: not into the processes whose memory is measured

    return tiny_bundle(path, image_size_px=side_px)


def _build(places: Places, out: Path, settings: ShardSettings) -> int:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return sum(write_shards(places["splits"], places["raw"], places["bundle"], out, silent, settings).values())


def _built(places: Places) -> int:
    import pyarrow.parquet as pq

    return pq.read_metadata(places["splits"] / "rows.parquet").num_rows


def stock_build(places: Places, out: Path) -> float:
    """Pictures by CPU second of the way that Hugging Face's course shows."""
    import datasets
    import torch
    from datasets import load_dataset
    from transformers import AutoTokenizer, BlipImageProcessorPil, BlipProcessor

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    files = str(places["raw"] / "pictures-*.parquet")
    data = load_dataset("parquet", data_files=files, split="train", cache_dir=str(out))
    size = {"height": SIDE_PX, "width": SIDE_PX}
    processor = BlipProcessor(BlipImageProcessorPil(size=size), AutoTokenizer.from_pretrained(places["bundle"]))

    def process(batch: dict[str, list[Any]]) -> Any:
        images = [image.convert("RGB") for image in batch["image"]]
        return processor(images=images, text=[CAPTION[0]] * len(images), padding=True, return_tensors="np")

    def build(rows: Any) -> None:
        rows.map(process, batched=True, batch_size=32, remove_columns=rows.column_names, load_from_cache_file=False)

    build(data.select(range(WARMING_UP)))
    return len(data) / cpu_seconds(lambda: build(data))


def our_build(places: Places, warm: Places, out: Path, encoding: Any) -> float:
    """Pictures by CPU second of write_shards in this process."""
    settings = ShardSettings(encoding, workers=1)
    _build(warm, out, settings)
    return _built(places) / cpu_seconds(lambda: _build(places, out, settings))


# -- workers and memory ------------------------------------------------------------------------------------------------


def bench_workers(path: Path, quick: bool) -> Iterator[Figure]:
    """Wall time of two workers beside one, start included, with shards of the default size and of a fifth of it."""
    pictures = small(1500 if quick else 6000)
    places = _inputs(path, pictures)
    for shard_mb in (128, 24):
        settings = ShardSettings(shard_bytes=shard_mb * 1024 * 1024)
        seconds = _repeated(
            lambda settings=settings: [apart(wall_of, places, path / "out", settings, workers) for workers in (1, 2)],
            quick,
        )
        files = len(list((path / "out").glob("*.parquet")))
        one, two = np.median(seconds, axis=0)
        detail = f"{_built(places):,} pictures in {files} files of {shard_mb} MB at most, {one:.1f} s and {two:.1f} s"
        yield Figure("workers: two against one", tuple(a / b for a, b in seconds), "x wall", 1.8, detail=detail)


def wall_of(places: Places, out: Path, settings: ShardSettings, workers: int) -> float:
    """Seconds of write_shards."""
    from dataclasses import replace

    return wall_seconds(lambda: _build(places, out, replace(settings, workers=workers)))


def bench_memory(path: Path, quick: bool) -> Iterator[Figure]:
    """Peak memory of each step, for one and for ten times as many pictures; shards with two workers, at 96 px."""
    few, many = (1200, 12_000) if quick else (5000, 50_000)
    peaks: dict[str, list[float]] = {"import": [], "splits": [], "shards": []}
    for count in (few, many):
        place = path / str(count)
        raw, splits, shards = (place / name for name in ("raw", "splits", "shards"))
        places = {"raw": raw, "splits": splits, "bundle": _bundle(place / "bundle", 96)}
        peaks["import"].append(apart(import_watched, raw, count))
        peaks["splits"].append(apart(splits_watched, raw, splits))
        peaks["shards"].append(apart(shards_watched, places, shards))
        shutil.rmtree(place)
    for step, (low, high) in peaks.items():
        kilobytes = 1000 * (high - low) / (many - few)
        detail = f"{low:,.0f} MB with {few:,}, {high:,.0f} MB with {many:,}: {kilobytes:.1f} kB a picture"
        yield Figure(f"memory of {step}: peak at ten times the pictures", (high / low,), "x", **FLAT, detail=detail)


class GeneratedSource:
    """Any number of small pictures, no two alike, each with a caption of its own."""

    attribution = Attribution("generated", "made for a benchmark", "CC0")

    def __init__(self, count: int) -> None:
        self.count = count

    def fingerprint(self, log: Log = silent) -> str:
        """They are the same every time."""
        return str(self.count)

    def total(self, log: Log = silent) -> int:
        """Pictures."""
        return self.count

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the pictures."""
        for number in range(self.count):
            caption = f"a picture of thing number {number} in colour"
            yield SourceRow(f"row {number}", _blocks(number, (128, 96)), captions=(caption,), file_name=f"{number}.jpg")


def import_watched(raw: Path, count: int) -> float:
    """Peak MB of import_source."""
    raw.mkdir(parents=True)
    return peak_mb(lambda: import_source(GeneratedSource(count), raw, max_bad_fraction=0.0, log=silent))


def splits_watched(raw: Path, splits: Path) -> float:
    """Peak MB of write_splits."""
    splits.mkdir()
    return peak_mb(lambda: write_splits(raw, splits, SplitConfig(holdouts=[]).settings(), silent))


def shards_watched(places: Places, out: Path) -> float:
    """Peak MB of write_shards."""
    return peak_mb(lambda: _build(places, out, ShardSettings(shard_bytes=8 * 1024 * 1024, workers=2)))


# -- reading -----------------------------------------------------------------------------------------------------------


def bench_reader(path: Path, quick: bool) -> Iterator[Figure]:
    """Pictures by CPU second out of the reader, shuffled, from the page cache; and the bound set by decoding alone."""
    places = _inputs(path, small(600 if quick else 2000))
    for encoding, goal in (("raw", 2000.0), ("png", None), ("jpeg", None)):
        out = path / f"shards-{encoding}"
        _build(places, out, ShardSettings(encoding, workers=2))
        alone, batched, bound = (
            _repeated(lambda out=out, encoding=encoding, how=how: apart(read_all, out, encoding, how), quick)
            for how in ("alone", "batched", "decode")
        )
        detail = f"stacked into batches (B, 3, H, W): {np.median(batched):,.0f}; "
        detail += f"decoding alone, nothing read: {np.median(bound):,.0f}"
        yield Figure(f"reader, {SIDE_PX} px {encoding}", tuple(alone), "pictures/s/core", goal, detail=detail)
        shutil.rmtree(out)


def read_all(shards: Path, encoding: str, how: str) -> float:
    """Pictures by CPU second, the second of two epochs."""
    from vlm_assets.data.encoding import decode_pixels
    from vlm_assets.data.tables import read_rows

    if how == "decode":
        data = [row["image"]["bytes"] for row in read_rows(shard_paths(shards, "train")[0], ["image"])][:300]
        return len(data) / cpu_seconds(lambda: [decode_pixels(one).copy() for one in data])
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
    return len(reader) / cpu_seconds(epoch)


# -- the other scripts of the stage ------------------------------------------------------------------------------------


def bench_dedup(path: Path, quick: bool) -> Iterator[Figure]:
    """Clustering of a million hashes; see bench_dedup.py."""
    from tests.benchmarks import bench_dedup as script

    path.mkdir(parents=True)
    for case in script.main(["--hashes", "50000" if quick else "1000000"]):
        found = f"{case.pictures:,} pictures, {case.found:,} of {case.planted:,} copies, {case.peak_mb:,.0f} MB"
        yield Figure(f"dedup, {case.name}", (case.link_seconds + case.assign_seconds,), "s", detail=found)


def bench_coco(path: Path, quick: bool) -> Iterator[Figure]:
    """Import of COCO captions: five a picture, small pictures, so that the rows are what costs."""
    rows = 5000 if quick else 50_000
    write_coco(path, rows // 5)
    measured = _repeated(lambda: apart(import_coco, path), quick)
    seconds, peak = np.median(measured, axis=0)
    detail = f"{rows:,} captions of {rows // 5:,} pictures, {seconds:.1f} s, peak {peak:,.0f} MB"
    yield Figure("import of COCO captions", tuple(rows / each for each, _ in measured), "captions/s", detail=detail)


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
        (path / "train2017" / str(image["file_name"])).write_bytes(_blocks(n, (64, 48)))


def import_coco(path: Path) -> tuple[float, float]:
    """(seconds, peak MB) of import_source."""
    out = path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    seconds: list[float] = []

    def work() -> None:
        import_source(CocoConfig(path=str(path)).open(), out, max_bad_fraction=0.0, log=silent)

    peak = peak_mb(lambda: seconds.append(wall_seconds(work)))
    return seconds[0], peak


# -- pictures ----------------------------------------------------------------------------------------------------------


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


def mosaics(count: int, across: int) -> list[bytes]:
    """Mosaics of 2 x 2 photographs, 800 x 1,066 px, or of 3 x 3, 1,200 x 1,599 px: as large as uploads, sharp to the
    pixel.
    """
    pictures = [Image.open(io.BytesIO(data)).convert("RGB").resize((400, 533)) for data in small(60)]
    made: list[bytes] = []
    for seed in range(min(count, 40)):
        chance, sheet = random.Random(seed), Image.new("RGB", (400 * across, 533 * across))
        for place in range(across**2):
            sheet.paste(chance.choice(pictures), (400 * (place % across), 533 * (place // across)))
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


def _blocks(seed: int, size_px: tuple[int, int]) -> bytes:
    blocks, buffer = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(blocks).resize(size_px).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


PARTS: dict[str, Callable[[Path, bool], Iterator[Figure]]] = {
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
