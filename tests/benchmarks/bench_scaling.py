"""What a picture costs at each stage, measured here; what millions of them need, computed from it.

    python -m tests.benchmarks.bench_scaling            # both tables, from docs/scaling.json
    python -m tests.benchmarks.bench_scaling --measure  # measures the CPU stages anew (a minute) and writes the page

Measured here: CPU seconds of all processes and bytes, on photographs of the clothing set at BLIP's own 384 px. What
wants a GPU and what memory the splits take comes from the tables of docs/benchmarks.md. The page's tables are written
by this script (a test compares them); nothing in them is typed in by hand.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.bench_data import SIDE_PX, small
from tests.benchmarks.figures import cpu_seconds
from tests.tiny import tiny_bundle
from vlm_assets.data.config import SplitConfig
from vlm_assets.data.raw import import_source
from vlm_assets.data.shards import ShardSettings, write_shards
from vlm_assets.data.sources.base import Attribution, Log, SourceRow, silent
from vlm_assets.data.splits import write_splits

DOCS = Path(__file__).parents[2] / "docs"
PAGE, FIGURES, BENCHMARKS = DOCS / "scaling.md", DOCS / "scaling.json", DOCS / "benchmarks.md"
SIZES = {"1 M": 10**6, "100 M": 10**8, "10 B": 10**10}
QUIET_LOAD = 1.5  # what ran a minute ago still counts
HOURS_S, TB, GB = 3600, 1e12, 1e9


@dataclass(frozen=True)
class Assumptions:
    """What nobody here has measured: prices of a large cloud by order of magnitude, and how the work is cut."""

    core_hour_usd: float = 0.05
    h100_hour_usd: float = 3.0
    tb_month_usd: float = 23.0
    cores_of_a_machine: int = 16
    memory_of_a_machine_gb: float = 128.0
    epochs: float = 5.0
    hours_of_a_stage: float = 24.0  # machines are counted so that a stage takes a day


class Photographs:
    """Pictures as a source, each with a caption of its own."""

    attribution = Attribution("clothing", "see tests/integration/data/clothing.py", "CC0")

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self.pictures = pictures

    def fingerprint(self, log: Log = silent) -> str:
        """They are the same every time."""
        return str(len(self.pictures))

    def total(self, log: Log = silent) -> int:
        """Pictures."""
        return len(self.pictures)

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the pictures."""
        for number, data in enumerate(self.pictures):
            caption = f"a photograph of garment number {number}"
            yield SourceRow(f"row {number}", data, captions=(caption,), file_name=f"{number}.jpg")


def measure(count: int) -> dict[str, float]:
    """CPU seconds and bytes a picture of the three stages of `data`."""
    pictures = small(count)
    seen = {"picture_bytes": sum(map(len, pictures)) / count}
    with tempfile.TemporaryDirectory() as folder:
        raw, splits, shards = (Path(folder) / name for name in ("raw", "splits", "shards"))
        bundle = tiny_bundle(Path(folder) / "bundle", image_size_px=SIDE_PX)
        for path in (raw, splits, shards):
            path.mkdir()
        write = {
            "import": lambda: import_source(Photographs(pictures), raw, max_bad_fraction=0.1, log=silent),
            "splits": lambda: write_splits(raw, splits, SplitConfig(holdouts=[]).settings(), silent),
        }
        for name, path in (("import", raw), ("splits", splits)):
            seen[f"{name}_cpu_s"] = cpu_seconds(write[name]) / count
            seen[f"{name}_bytes"] = _bytes(path) / count
        kept: dict[str, int] = {}
        for encoding in ("jpeg", "png"):
            settings = ShardSettings(encoding, workers=1)
            seconds = cpu_seconds(
                lambda settings=settings: kept.update(write_all(splits, raw, bundle, shards, settings))
            )
            seen[f"shards_{encoding}_cpu_s"] = seconds / sum(kept.values())
            seen[f"shards_{encoding}_bytes"] = _bytes(shards) / sum(kept.values())
    return {"pictures": count, **{name: float(f"{value:.4g}") for name, value in seen.items()}}


def write_all(splits: Path, raw: Path, bundle: Path, shards: Path, settings: ShardSettings) -> dict[str, int]:
    """Shards into an empty directory."""
    shutil.rmtree(shards)
    shards.mkdir()
    return write_shards(splits, raw, bundle, shards, silent, settings)


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def from_benchmarks(text: str) -> dict[str, float]:
    """What docs/benchmarks.md has of the H100 and of memory; raises ValueError if a row is not there any more."""
    patterns = {
        "train_h100_per_s": r"\| batch 128, `compile` \|[^|]*\| ([\d.]+) pictures/s",
        "caption_h100_ms": r"\| bf16, batch 32, greedy \|[^|]*\| ([\d.]+) \|",
        "splits_memory_kb": r"compare all thumbnails with each other, ([\d.]+) kB",
    }
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    missing = [name for name, match in found.items() if match is None]
    if missing:
        raise ValueError(f"{BENCHMARKS.name} has no row for {', '.join(missing)}; correct the patterns here.")
    return {name: float(match[1]) for name, match in found.items() if match}


def needs(pictures: int, cost: dict[str, float], given: Assumptions) -> dict[str, float]:
    """Hours, machines, bytes and money for so many pictures, if every stage went on as it does for few."""
    core_hours = {
        "import": pictures * cost["import_cpu_s"] / HOURS_S,
        "splits": pictures * cost["splits_cpu_s"] / HOURS_S,
        "shards": pictures * cost["shards_jpeg_cpu_s"] / HOURS_S,
    }
    training = pictures * given.epochs / cost["train_h100_per_s"] / HOURS_S
    captioning = pictures * cost["caption_h100_ms"] / 1000 / HOURS_S
    stored_tb = pictures * (cost["import_bytes"] + cost["splits_bytes"] + cost["shards_jpeg_bytes"]) / TB
    cores = sum(core_hours.values())
    return {
        **{f"{name}_core_hours": hours for name, hours in core_hours.items()},
        "import_days": core_hours["import"] / given.cores_of_a_machine / 24,
        "shard_machines": core_hours["shards"] / given.cores_of_a_machine / given.hours_of_a_stage,
        "splits_memory_gb": pictures * cost["splits_memory_kb"] * 1000 / GB,
        "train_gpu_hours": training,
        "train_gpus": training / given.hours_of_a_stage,
        "caption_gpu_hours": captioning,
        "stored_tb": stored_tb,
        "compute_usd": cores * given.core_hour_usd + (training + captioning) * given.h100_hour_usd,
        "storage_usd_month": stored_tb * given.tb_month_usd,
    }


ROWS = {
    "import, core-hours": "import_core_hours",
    "import, days on one machine, where it runs": "import_days",
    "splits, core-hours, if they grew in proportion": "splits_core_hours",
    "splits, memory of their one process, GB": "splits_memory_gb",
    "shards (JPEG), core-hours": "shards_core_hours",
    "shards, machines for a day": "shard_machines",
    "training, H100-hours": "train_gpu_hours",
    "training, H100s for a day": "train_gpus",
    "each captioned once, H100-hours": "caption_gpu_hours",
    "snapshot, splits and shards, TB": "stored_tb",
    "compute, USD": "compute_usd",
    "storage, USD a month": "storage_usd_month",
}


def measured_table(figures: dict[str, float | str]) -> str:
    """What was measured here, by stage."""
    lines = ["| stage | CPU ms a picture | kB a picture on disk |", "|---|---|---|"]
    for stage, key in (
        ("`raw_dataset`", "import"), ("`validated_splits`", "splits"),
        ("`tokenized_shards`, JPEG", "shards_jpeg"), ("`tokenized_shards`, PNG", "shards_png"),
    ):  # fmt: skip
        milliseconds, kilobytes = 1000 * float(figures[f"{key}_cpu_s"]), float(figures[f"{key}_bytes"]) / 1000
        lines.append(f"| {stage} | {milliseconds:.1f} | {kilobytes:.1f} |")
    size_kb = float(figures["picture_bytes"]) / 1000
    told = f"{figures['pictures']:,.0f} pictures of {size_kb:.0f} kB; {figures['when']}, load {figures['load']}."
    return "\n".join([*lines, "", told])


def arithmetic_table(cost: dict[str, float], given: Assumptions) -> str:
    """What each size needs."""
    found = {name: needs(size, cost, given) for name, size in SIZES.items()}
    lines = [f"| | {' | '.join(SIZES)} |", "|---|" + "---|" * len(SIZES)]
    for label, key in ROWS.items():
        lines.append(f"| {label} | " + " | ".join(amount(one[key]) for one in found.values()) + " |")
    most = given.memory_of_a_machine_gb * GB / (cost["splits_memory_kb"] * 1000)
    gigabytes = given.memory_of_a_machine_gb
    return "\n".join([*lines, "", f"A machine of {gigabytes:g} GB splits {amount(most)} pictures at most."])


def amount(value: float) -> str:
    """Two significant digits: nothing here is known better."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def written(page: str, figures: dict[str, float | str], benchmarks: str) -> str:
    """The page with both tables as they follow from the figures."""
    cost = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    cost |= from_benchmarks(benchmarks)
    given = Assumptions()
    assumed = "\n".join(f"- `{name}`: {value:g}" for name, value in vars(given).items())
    tables = {"measured": measured_table(figures), "assumed": assumed, "arithmetic": arithmetic_table(cost, given)}
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        page = re.sub(f"{begin}.*?{end}", lambda _, t=table, b=begin, e=end: f"{b}\n{t}\n{e}", page, flags=re.DOTALL)
    return page


def main(argv: Sequence[str] | None = None) -> None:
    """Print the page's tables; with --measure, measure and write figures and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure anew; writes docs/scaling.json and the page")
    parser.add_argument("--pictures", type=int, default=500)
    options = parser.parse_args(argv)
    if options.measure:
        from tests.benchmarks.bench_train import device_name

        busy = os.getloadavg()[0]
        load = f"{busy:.0f}" + (" (beside other work)" if busy > QUIET_LOAD else "")
        today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
        figures = {
            **measure(options.pictures),
            "when": f"{os.cpu_count()}-core {device_name().split(',')[0]}, {today}",
            "load": load,
        }
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    page = written(PAGE.read_text(), json.loads(FIGURES.read_text()), BENCHMARKS.read_text())
    PAGE.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
