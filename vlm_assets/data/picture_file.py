"""A picture file, read once: what kind of file it is, and its pixels."""

import hashlib
from dataclasses import dataclass

from PIL import Image

from vlm_serving.errors import PictureError, PictureTooLargeError, UnsupportedPictureError
from vlm_serving.images import open_picture, render_picture
from vlm_serving.picture_formats import foreign_format

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = 1
PNG_BIT_DEPTH_AT = 24  # the byte of the header, https://www.w3.org/TR/png-3/#11IHDR
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
}
# of pictures that are not read
FOREIGN_SUFFIXES = frozenset({".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ico", ".psd", ".svg"})
PICTURE_SUFFIXES = FOREIGN_SUFFIXES.union(*SUFFIXES.values())


@dataclass(frozen=True, slots=True)
class PictureFile:
    """What the file says of itself. Width and height are those of the upright picture."""

    format: str  # Pillow's name, by the content: JPEG, PNG, WEBP, GIF, BMP
    mode: str  # Pillow's name as stored: RGB, RGBA, L, P, CMYK, I;16; with ";16" where more than 8 bits were cut off
    orientation: int  # EXIF: 1 upright, 2..8 turned or mirrored, which has been undone
    frames: int  # 1 for a still picture; of an animation the first is used
    transparent: bool  # at least one pixel is, and white shows through
    width: int
    height: int
    size_bytes: int


def read_picture(data: bytes) -> tuple[PictureFile, Image.Image]:
    """Decode a file to upright RGB and say what it was. Raises PictureError and its kinds."""
    opened = open_picture(data)
    mode = _stored_mode(opened, data)
    pixels = render_picture(opened)
    file = PictureFile(
        format=opened.format or "",
        mode=mode,
        orientation=_orientation(opened),
        frames=_frames(opened),
        transparent=_is_transparent(opened),
        width=pixels.width,
        height=pixels.height,
        size_bytes=len(data),
    )
    return file, pixels


def pixel_sha256(picture: Image.Image) -> str:
    """Hex digest of a decoded RGB picture: equal pixels and size, equal digest, whatever the file format."""
    state = hashlib.sha256(f"{picture.mode} {picture.width}x{picture.height} ".encode())
    state.update(picture.tobytes())
    return state.hexdigest()


def fault_of(error: PictureError, data: bytes) -> str:
    """The countable reason for which a file gave no picture."""
    if not data:
        return "empty_file"
    if isinstance(error, PictureTooLargeError):
        return "picture_too_large"
    if _is_cut_off(data):
        return "truncated_picture"
    if isinstance(error, UnsupportedPictureError):
        return "unsupported_format" if foreign_format(data) else "not_a_picture"
    return "damaged_picture"


def _is_cut_off(data: bytes) -> bool:
    """Whether the mark that ends a file of its format is missing."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-64:]  # some cameras append a few bytes
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"GIF8"):
        return b"\x3b" not in data[-4:]
    return data.startswith(b"BM") and len(data) < int.from_bytes(data[2:6], "little")


def _stored_mode(opened: Image.Image, data: bytes) -> str:
    deep = opened.format == "PNG" and data[PNG_BIT_DEPTH_AT] == 16
    return f"{opened.mode};16" if deep and ";16" not in opened.mode else opened.mode


def _orientation(opened: Image.Image) -> int:
    value = opened.getexif().get(ORIENTATION, UPRIGHT)
    return value if isinstance(value, int) and value in range(1, 9) else UPRIGHT  # cameras write 0, others anything


def _frames(opened: Image.Image) -> int:
    try:
        return int(getattr(opened, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError):  # the first frame is whole, a later one is not
        return 2


def _is_transparent(loaded: Image.Image) -> bool:
    if "transparency" in loaded.info and loaded.mode in ("1", "L", "P", "RGB"):
        loaded = loaded.convert("RGBA")
    if "A" not in loaded.getbands():
        return False
    lowest, _ = loaded.getchannel("A").getextrema()
    return isinstance(lowest, int) and lowest < 255
