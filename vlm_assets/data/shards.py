"""From clean splits to model-ready shards: pictures at the model's size, captions as token ids."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlm_assets.data.captions import CaptionTokenizer, TokenCounts, read_tokenizer
from vlm_assets.data.encoding import Encoding
from vlm_assets.data.shard_files import ShardJob, encoded_bytes, shard_info
from vlm_assets.data.shard_plan import ShardPlan
from vlm_assets.data.shard_workers import crew_for, run_here, run_in_processes
from vlm_assets.data.tables import read_json, read_rows, write_json
from vlm_serving.preprocessing import PreprocessingContract
from vlm_serving.progress import Progress

CONTRACT = "contract.json"
GROUP_BYTES = 16 * 1024 * 1024  # what a reader takes at once
GROUP_ROWS = 256


@dataclass(frozen=True)
class ShardSettings:
    """How shards are made. Workers, nodes and the Ray address change nothing of their bytes."""

    encoding: Encoding = "png"
    quality: int = 95
    shard_bytes: int = 128 * 1024 * 1024
    workers: int = 0  # processes a machine; 0: one for each core
    nodes: int = 1
    ray_address: str = ""


DEFAULT_SETTINGS = ShardSettings()


def write_shards(
    splits: Path,
    raw: Path,
    bundle: Path,
    directory: Path,
    log: Callable[[str], object],
    settings: ShardSettings = DEFAULT_SETTINGS,
    scratch: Path | None = None,
) -> dict[str, int]:
    """Write the shards of every split and the preprocessing contract that made them; returns pictures per split.

    `splits`, `raw` and `bundle` are directories of validated_splits, raw_dataset and a servable model. Pictures come in
    the order of the snapshot. Shards are made in `scratch`, where a killed run leaves the finished ones to the next.
    Raises SourceError, StoreError.
    """
    contract = contract_of(bundle)
    plan = ShardPlan(splits, raw)
    made = scratch or directory
    text = read_tokenizer(bundle, contract)
    job = ShardJob(tuple(plan.packs), made, contract, text, settings.encoding, settings.quality, GROUP_ROWS)
    mean_bytes = encoded_bytes(job, plan.sample())
    job = replace(job, rows_per_group=max(1, min(GROUP_ROWS, math.floor(GROUP_BYTES / mean_bytes))))
    rows_per_file = max(1, round(settings.shard_bytes / mean_bytes))
    _make(job, plan, rows_per_file, settings, log)
    names = [f"{split}-{n:05d}.parquet" for split, files in plan.files(rows_per_file).items() for n in range(files)]
    if made != directory:
        for name in names:
            _link(made / name, directory / name)
    shutil.copyfile(bundle / CONTRACT, directory / CONTRACT)
    summary = _summary(plan.counts, [directory / name for name in names], job, mean_bytes)
    attribution = read_json(splits / "summary.json").get("attribution", {})
    write_json(directory / "summary.json", {**summary, "attribution": attribution})
    return plan.counts


def contract_of(directory: Path) -> PreprocessingContract:
    """The preprocessing contract of a bundle, or of a directory of shards."""
    return PreprocessingContract.from_json(read_json(directory / CONTRACT))


def shard_paths(directory: Path, split: str) -> list[Path]:
    """The files of one split, in order; `test` does not name those of `test_unseen_role`."""
    return sorted(directory.glob(f"{split}-[0-9]*.parquet"))


def sample_texts(directory: Path, bundle: Path, limit: int = 5) -> list[dict[str, str]]:
    """Captions beside their word pieces, from the training shards: what the model reads."""
    contract = contract_of(directory)
    tokenizer = CaptionTokenizer(read_tokenizer(bundle, contract), contract)
    rows = read_rows(shard_paths(directory, "train")[0], ["captions", "input_ids"])[:limit]
    return [{"caption": row["captions"][0], "word pieces": tokenizer.pieces(row["input_ids"][0])} for row in rows]


def _make(
    job: ShardJob, plan: ShardPlan, rows_per_file: int, settings: ShardSettings, log: Callable[[str], object]
) -> None:
    files = sum(plan.files(rows_per_file).values())
    tasks = plan.tasks(rows_per_file)
    crew = crew_for(settings.workers, plan.pictures, files)
    progress = Progress("shards", plan.pictures, log)
    if settings.ray_address or settings.nodes > 1:
        from vlm_assets.data.ray_shards import run_on_ray

        run_on_ray(job, tasks, settings.ray_address, settings.nodes * settings.workers, progress)
    else:
        log(f"shards: {files:,} files by {crew}")
        job = replace(job, threads=crew.threads)
        if crew.processes == 1:
            run_here(job, tasks, progress)
        else:
            run_in_processes(job, tasks, crew.processes, progress)
    progress.done()


def _link(made: Path, final: Path) -> None:
    """The same file under a second name: if we are killed before it is published, the first is still there."""
    try:
        os.link(made, final)
    except OSError:  # another file system
        shutil.copyfile(made, final)


def _summary(counts: dict[str, int], files: list[Path], job: ShardJob, mean_bytes: float) -> dict[str, Any]:
    tokens = TokenCounts()
    for file in files:
        tokens.add(shard_info(file)["tokens"])
    return {
        "splits": counts,
        "files": len(files),
        "bytes": sum(file.stat().st_size for file in files),
        "image_size_px": job.contract.image_size_px,
        "encoding": job.encoding,
        "quality": job.quality if job.encoding in ("jpeg", "webp") else None,
        "rows_per_group": job.rows_per_group,
        "mean_picture_bytes": round(mean_bytes),
        "contract_sha256": job.contract.sha256,
        "tokens": tokens.to_json(),
    }
