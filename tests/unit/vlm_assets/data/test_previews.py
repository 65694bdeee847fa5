from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_assets.data.previews import (
    MAX_PICTURE_BYTES,
    as_markdown,
    write_caption_lengths,
    write_contact_sheet,
)


def test_noise_is_squeezed_into_the_limit(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (72, 72, 3), dtype=np.uint8)
    write_contact_sheet(tmp_path / "s.webp", [(Image.fromarray(noise), "much too long a caption to fit below it")] * 24)
    assert (tmp_path / "s.webp").stat().st_size <= MAX_PICTURE_BYTES


def test_an_empty_sheet_is_a_picture_too(tmp_path: Path):
    write_contact_sheet(tmp_path / "s.webp", [])
    with Image.open(tmp_path / "s.webp") as sheet:
        assert sheet.width > 0


@pytest.mark.parametrize("counts", [[3, 4, 4, 9], [1], []])
def test_plots_draw(tmp_path: Path, counts: list[int]):
    write_caption_lengths(tmp_path / "lengths.png", counts)
    assert (tmp_path / "lengths.png").stat().st_size <= MAX_PICTURE_BYTES
    assert as_markdown(tmp_path / "lengths.png").startswith("![lengths](data:image/png;base64,iVBOR")
