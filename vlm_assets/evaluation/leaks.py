"""What leaking duplicates are worth in CIDEr: measured on the baseline that copies, so that nothing is trained for it.

A naive split deals the rows of the source at random. Copies and near duplicates of a test picture then train, and who
remembers them scores without looking. Here every row of the headline split's pictures is tested twice, against its own
captions and with equal word weights: once with only the training split to copy from, once with the row's twins and
group mates besides, as far as a random split would have put them there. The difference is the leak and nothing else.
Figures are means over DRAWS such splits. A model that was fine-tuned on one could gain more or less: not measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlm_assets.data.tables import read_json
from vlm_assets.evaluation.baselines import Nearest
from vlm_assets.evaluation.coco import coco_scores
from vlm_assets.evaluation.corpus import Bools, Floats, Ints
from vlm_assets.evaluation.predict import CaptionTable
from vlm_assets.evaluation.significance import Difference, paired_difference

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import EvalConfig

COLUMNS = ["image_id", "split", "cluster", "captions", "row_captions"]
ORDINARY_SPLITS = ("train", "val", "test")
DRAWS = 20  # naive splits, over which figures are averaged
ROWS_AT_ONCE = 256  # rows of a cluster that are compared with all its rows at a time


@dataclass(frozen=True)
class SourceRow:
    """A row of the source that shows a picture of the headline split."""

    picture: int  # place in the headline split
    cluster: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Leaks:
    """CIDEr of copying, mean over rows, without the twins and with them; `inflation` is their difference.

    Its interval is a bootstrap over clusters: twins are not independent. None where nothing leaks.
    """

    rows: int
    leaked_rows: float  # mean over the draws
    clean: float
    leaky: float
    clean_on_leaked: float | None
    leaky_on_leaked: float | None
    inflation: Difference | None


def leak_facts(
    splits: Path, copied: CaptionTable, looks: NDArray[np.float32], near: Nearest, config: EvalConfig
) -> dict[str, Any]:
    """For scores.json: the split stage's count of leaks in all splits, and `measure_leaks` on the headline's pictures.

    `splits` is the directory of validated_splits. The others hold the headline split's N pictures in order: what the
    copying baseline says, thumbnails (N, D), the nearest training pictures.
    """
    table: list[dict[str, Any]] = pq.read_table(splits / "rows.parquet", columns=COLUMNS).to_pylist()
    ordinary = [row["split"] for row in table if row["split"] in ORDINARY_SPLITS]
    share = ordinary.count("train") / max(len(ordinary), 1)
    rows = list(source_rows({row["image_id"]: row for row in table}, copied["image_id"].to_pylist()))
    trains = np.random.default_rng(config.seed).random((DRAWS, len(rows))) < share
    said = copied["caption"].to_pylist()
    found = measure_leaks(rows, trains, looks, near, said, resamples=config.resamples, seed=config.seed)
    naive = read_json(splits / "summary.json")["naive_split"]
    return {"naive_split": naive, "train_share": share, "draws": DRAWS, **asdict(found)}


def source_rows(pictures: Mapping[str, Mapping[str, Any]], image_ids: Sequence[str]) -> Iterator[SourceRow]:
    """The source's rows of these pictures, each with what it says."""
    for place, image_id in enumerate(image_ids):
        picture = pictures[image_id]
        for said in picture["row_captions"]:
            yield SourceRow(place, picture["cluster"], tuple(picture["captions"][caption] for caption in said))


def measure_leaks(
    rows: Sequence[SourceRow], trains: Bools, looks: NDArray[np.float32], near: Nearest, copied: Sequence[str], *,
    resamples: int, seed: int,
) -> Leaks:  # fmt: skip
    """Score copying on `rows` with and without their twins. `trains` (draws, rows): which a naive split trains on.

    Of the N pictures: thumbnails (N, D), the nearest training pictures and their captions.
    """
    twins, distances = nearest_twins(rows, trains, looks)
    leaked = twins >= 0  # (draws, rows)
    references = [row.captions for row in rows]
    places = np.array([row.picture for row in rows])
    own: list[str] = [copied[row.picture] for row in rows]
    clean = _cider(own, references)
    if not leaked.any():
        return Leaks(len(rows), 0.0, float(clean.mean()), float(clean.mean()), None, None, None)
    nearer = leaked & (distances <= near.distances[places])
    told, kin = [row.captions[0] for row in rows], [row.cluster for row in rows]
    leaky = np.stack(
        [
            _cider([told[twin] if use else text for twin, use, text in zip(*draw, own, strict=True)], references)
            for draw in zip(twins, nearer, strict=True)
        ]
    )  # (draws, rows)
    return Leaks(
        rows=len(rows),
        leaked_rows=float(leaked.sum(axis=1).mean()),
        clean=float(clean.mean()),
        leaky=float(leaky.mean()),
        clean_on_leaked=float(np.broadcast_to(clean, leaked.shape)[leaked].mean()),
        leaky_on_leaked=float(leaky[leaked].mean()),
        inflation=paired_difference(leaky.mean(axis=0), clean, clusters=kin, resamples=resamples, seed=seed),
    )


def nearest_twins(rows: Sequence[SourceRow], trains: Bools, looks: NDArray[np.float32]) -> tuple[Ints, Floats]:
    """For each draw and row the nearest other row of its cluster that trains, -1 if none does; and how far it is.

    Both (draws, rows); distances are RMS differences of thumbnails, infinite where there is no twin.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        members[row.cluster].append(number)
    twins, distances = np.full(trains.shape, -1, dtype=np.int64), np.full(trains.shape, np.inf)
    for kin in (np.array(numbers) for numbers in members.values() if len(numbers) > 1):
        seen = looks[[rows[number].picture for number in kin]]
        for start in range(0, len(kin), ROWS_AT_ONCE):
            tested = kin[start : start + ROWS_AT_ONCE]
            apart = _distances(seen[start : start + ROWS_AT_ONCE], seen)  # (T, K)
            apart[tested[:, None] == kin[None, :]] = np.inf  # a row is no twin of itself
            for draw, training in enumerate(trains[:, kin]):
                found = np.where(training, apart, np.inf)
                distances[draw, tested] = found.min(axis=1)
                twins[draw, tested] = np.where(np.isfinite(found.min(axis=1)), kin[found.argmin(axis=1)], -1)
    return twins, distances


def _distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> Floats:
    """RMS differences, (A, B)."""
    squared = (a**2).sum(axis=1)[:, None] - 2 * (a @ b.T) + (b**2).sum(axis=1)[None, :]
    return np.sqrt(np.maximum(squared, 0) / a.shape[1]).astype(np.float64)


def _cider(said: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    return coco_scores(said, references).cider.items
