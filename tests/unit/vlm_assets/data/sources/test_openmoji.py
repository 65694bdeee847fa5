import io

import numpy as np
import pytest
from PIL import Image

from vlm_assets.data.sources.openmoji import OpenMojiSource, render

SVG = (
    '<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg"><g id="color"><rect width="36" height="72" '
    'fill="#f00"/></g><g id="line"><rect x="36" width="36" height="72" fill="#000"/></g></svg>'
)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_rendering_is_square_opaque_and_repeatable():
    png = render(SVG, 48)
    assert png == render(SVG, 48)
    assert pixels(png).shape == (48, 48, 3)
    assert pixels(png)[10, 10].tolist() == [255, 0, 0]
    assert pixels(png)[10, 40].tolist() == [0, 0, 0]


def test_flat_style_leaves_out_the_outlines():
    assert pixels(render(SVG, 48, "flat"))[10, 40].tolist() == [255, 255, 255]


def test_subsets_part_the_people():
    sizes = {name: OpenMojiSource(name).total() for name in ("roles", "general_people", "all_people")}
    assert sizes == {"roles": 650, "general_people": 1768, "all_people": 2418}


def test_rows_stream_with_pictures_captions_and_slots():
    row = next(iter(OpenMojiSource("roles", size_px=32)))
    assert row.picture is not None and pixels(row.picture).shape == (32, 32, 3)
    assert row.captions[0] == "santa claus with light skin tone"
    assert row.slots[0] == {"role": "santa claus", "gender": "", "skin_tone": "light"}
    assert len(row.slots) == len(row.captions)


def test_fingerprint_follows_the_settings_only():
    prints = [
        OpenMojiSource("roles").fingerprint(),
        OpenMojiSource("roles").fingerprint(),
        OpenMojiSource("general_people").fingerprint(),
        OpenMojiSource("roles", size_px=96).fingerprint(),
        OpenMojiSource("roles", style="flat").fingerprint(),
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4


@pytest.mark.parametrize("style", ["color", "flat"])
def test_a_real_drawing_renders_in_both_styles(style):
    picture = pixels(next(iter(OpenMojiSource("roles", size_px=64, style=style))).picture or b"")
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5
    black = (picture.max(axis=2) < 20).mean()
    assert black > 0.01 if style == "color" else black < 0.01
