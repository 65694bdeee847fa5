"""How large the drift effect of a change of pictures is: OpenMoji's role drawings, changed, through a bundle's encoder.

    python tests/benchmarks/bench_drift_effect.py --bundle PATH

The reference is 500 drawings, the traffic the others (disjoint), as they are and changed. A change that costs captions
must come above an effect of 1, a change that costs nothing below.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vlm_assets.data.sources.openmoji import OpenMojiSource
from vlm_assets.monitoring.drift import Threshold, decide, mmd_permutation_test
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.generation import GenerationOptions
from vlm_serving.images import decode_picture

REFERENCE = 500
SMALL_WINDOW = 50
BATCH = 32


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
    "none": lambda picture: picture,
    "blur, radius 1 px": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    "JPEG, quality 10": squeezed,
    "noise, 25 grey levels": noisy,
    "rotated by 20 degrees": lambda picture: picture.rotate(20, fillcolor="white"),
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "darkened to 40 %": lambda picture: ImageEnhance.Brightness(picture).enhance(0.4),
}


def embeddings(captioner: Captioner, pictures: list[Image.Image]) -> NDArray[np.float32]:
    """What the encoder sees, (n, d)."""
    options = GenerationOptions(max_new_tokens=1)
    batches = [pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH)]
    return np.stack([caption.embedding for batch in batches for caption in captioner.caption(batch, options)])


def line(name: str, reference: NDArray[np.float32], traffic: NDArray[np.float32]) -> str:
    """One row of the table: all traffic, and a small window of it."""
    cells: list[str] = []
    for rows in (traffic, traffic[:SMALL_WINDOW]):
        test = mmd_permutation_test(reference, rows)
        cells += [f"{test.p_value:.3f}", f"{test.effect_size:.2f}", decide(test, Threshold())]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Embed, compare, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="a bundle directory")
    captioner = Captioner(open_bundle(parser.parse_args().bundle), device="cpu", threads=1)
    drawings = {
        style: [decode_picture(row.picture) for row in OpenMojiSource("roles", style=style) if row.picture]
        for style in ("color", "flat")
    }
    order = np.random.default_rng(0).permutation(min(len(pictures) for pictures in drawings.values()))
    reference = embeddings(captioner, [drawings["color"][row] for row in order[:REFERENCE]])
    rest = order[REFERENCE:]
    print(
        f"reference {len(reference)} drawings; traffic {len(rest)}, then {SMALL_WINDOW}; bundle {captioner.version}\n"
    )
    print(f"| change | p ({len(rest)}) | effect | verdict | p ({SMALL_WINDOW}) | effect | verdict |\n|{'---|' * 7}")
    for name, change in CHANGES.items():
        print(line(name, reference, embeddings(captioner, [change(drawings["color"][row]) for row in rest])))
    print(line("outlines removed (flat)", reference, embeddings(captioner, [drawings["flat"][row] for row in rest])))


if __name__ == "__main__":
    main()
