"""Outcomes of a check -> one HTML page that reads well offline: no script, nothing loaded from elsewhere.

Great Expectations' own Data Docs load styles and fonts from the network, so this page is ours. It stands beside the
artifacts, at `<store>/data_docs/<asset>/<version>.html`: an artifact is closed once built, and a check that is run
again, with other expectations, replaces its page.
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq
from jinja2 import Environment, FileSystemLoader

from vlm_assets.contracts import ArtifactRef
from vlm_assets.data.expectations.validate import Outcome
from vlm_assets.store import Store
from vlm_serving.errors import PictureError
from vlm_serving.images import decode_picture

TEMPLATE = Path(__file__).with_name("data_docs.html.j2")
THUMB_PX = 144  # shown at half of it: sharp on dense screens
TITLES = {
    "raw_dataset": "the raw snapshot",
    "validated_splits": "the splits",
    "tokenized_shards": "the shards",
}


def write_data_docs(store: Store, ref: ArtifactRef, outcomes: Sequence[Outcome], pictures: Path) -> str:
    """Write the page of an artifact into the store; returns where it is (a path, or an S3 URI)."""
    thumbs = thumbnails(pictures, {example.row for outcome in outcomes for example in outcome.examples})
    key = f"data_docs/{ref.name}/{ref.version}.html"
    store.backend.write_text(key, render(ref, outcomes, thumbs))
    return f"{store.uri}/{key}"


def render(
    ref: ArtifactRef,
    outcomes: Sequence[Outcome],
    thumbs: Mapping[str, str],
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> str:
    """The page as text. `thumbs` maps image ids to data URIs."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, trim_blocks=True)
    return environment.get_template(TEMPLATE.name).render(
        ref=ref,
        headline=headline(outcomes, TITLES.get(ref.name, ref.name)),
        counts=[(name.replace("_", " "), f"{count:,}") for name, count in ref.counts.items()],
        held=len(outcomes) - len(failed),
        total=len(outcomes),
        critical=[outcome for outcome in failed if outcome.severity == "critical"],
        warnings=[outcome for outcome in failed if outcome.severity == "warning"],
        tables=[(name, list(rows)) for name, rows in groupby(outcomes, key=lambda outcome: outcome.table)],
        thumbs=thumbs,
        checked=f"{now():%d %B %Y, %H:%M} UTC",
        gx_version=version("great-expectations"),
    )


def headline(outcomes: Sequence[Outcome], subject: str) -> str:
    """The verdict in one sentence."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    critical = sum(outcome.severity == "critical" for outcome in failed)
    if critical:
        return f"{_counted(critical, 'critical expectation')} of {subject} {'does' if critical == 1 else 'do'} not hold"
    if failed:
        return f"Nothing critical in {subject}, {_counted(len(failed), 'warning')}"
    return f"All {len(outcomes)} expectations of {subject} hold"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def thumbnails(directory: Path, image_ids: Iterable[str]) -> dict[str, str]:
    """Small pictures of the examples as data URIs, by image id, from the packs or shards in `directory`.

    A row that is no picture (a file, a pair), and a picture that cannot be decoded, has none.
    """
    found = find_pictures(directory, set(image_ids))
    thumbs = {image_id: _thumbnail(data) for image_id, data in found.items()}
    return {image_id: thumb for image_id, thumb in thumbs.items() if thumb}


def find_pictures(directory: Path, image_ids: set[str]) -> dict[str, bytes]:
    """File bytes of the wanted pictures. Reads the ids of all, and only those row groups that hold one."""
    found: dict[str, bytes] = {}
    for file in sorted(directory.glob("*-[0-9]*.parquet")) if image_ids else ():
        with pq.ParquetFile(file) as parquet:
            name = "image_id" if "image_id" in parquet.schema_arrow.names else "sha256"
            for group in range(parquet.num_row_groups):
                ids = [str(value)[:16] for value in parquet.read_row_group(group, columns=[name]).column(0).to_pylist()]
                hits = [at for at, image_id in enumerate(ids) if image_id in image_ids]
                if hits:
                    images = parquet.read_row_group(group, columns=["image"])["image"].take(hits).to_pylist()
                    found |= {ids[at]: image["bytes"] or b"" for at, image in zip(hits, images, strict=True) if image}
    return found


def _thumbnail(data: bytes) -> str:
    try:
        picture = decode_picture(data)
    except PictureError:
        return ""
    picture.thumbnail((THUMB_PX, THUMB_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
