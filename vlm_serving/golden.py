"""Golden vectors: what the model saw and said of a few pictures when it was made, for every machine to repeat."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from vlm_serving.bundle import GOLDEN
from vlm_serving.captioner import Captioner
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import JPEG_OVERSAMPLING, LARGE_FROM_PX, decode_for_model

LYING = 6  # the EXIF orientation of a camera held upright: the picture is stored turned to the left
JPEG_QUALITY = 90


def write_golden(captioner: Captioner, pictures: Sequence[bytes], path: Path) -> None:
    """Record golden vectors for encoded `pictures` into the bundle directory `path`, before it is sealed.

    They are kept as PNG of what is seen, without whatever else a file tells (EXIF may say where it was taken). The
    first is kept once more as a large JPEG, so that its reduced decoding is among what has to be repeated.
    """
    (path / "golden").mkdir(exist_ok=True)
    seen = [decode_picture(data) for data in pictures]
    files = {f"{number}.png": _encoded(picture, "PNG") for number, picture in enumerate(seen)}
    if seen:
        files["0-large.jpg"] = large_jpeg(seen[0], captioner.bundle.contract.image_size_px)
    entries = [_record(captioner, name, data, path) for name, data in files.items()]
    (path / GOLDEN).write_text(json.dumps(entries) + "\n")


def large_jpeg(picture: Image.Image, side_px: int) -> bytes:
    """The picture as a JPEG that `decode_for_model` decodes at a reduced size and turns upright, for a model's side."""
    least = min(denominator * oversampling for denominator, oversampling in JPEG_OVERSAMPLING.items())
    scale = max(LARGE_FROM_PX, least * side_px) / min(picture.size)
    width_px, height_px = (math.ceil(scale * length) for length in picture.size)
    # enlarged with hard edges: on them reduced decoding differs from full decoding by more than rounding does
    large = picture.resize((width_px, height_px), Image.Resampling.NEAREST)
    turned = large.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = LYING
    return _encoded(turned, "JPEG", quality=JPEG_QUALITY, exif=exif)


def _record(captioner: Captioner, name: str, data: bytes, path: Path) -> dict[str, Any]:
    seen = decode_for_model(data, captioner.bundle.contract)
    caption = captioner.caption_pixels(seen.pixels[None])[0]
    names = {"picture": f"golden/{name}", "pixels": f"golden/{Path(name).stem}-pixels.png"}
    (path / names["picture"]).write_bytes(data)
    (path / names["pixels"]).write_bytes(_encoded(Image.fromarray(seen.square), "PNG"))
    return {**names, "caption": caption.text, "embedding": [float(x) for x in caption.embedding]}


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
