"""Bytes from anywhere -> an upright RGB picture, or one clear error. Size is checked before anything is decoded."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from vlm_serving.bounded_reading import MAX_SCANS, BoundedFile, TooManyPartsError, pixel_limit, scan_count
from vlm_serving.errors import PictureError, PictureTooLargeError, UnsupportedPictureError
from vlm_serving.picture_formats import foreign_format

MEBIBYTE = 1024 * 1024
BAND_ROWS = 256


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may be. `formats` are Pillow's names; only their decoders are ever tried."""

    max_bytes: int = 20 * MEBIBYTE
    max_pixels: int = 40_000_000
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


DEFAULT_LIMITS = PictureLimits()
_one_at_a_time = threading.Lock()


def decode_picture(data: bytes, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode to RGB: EXIF orientation applied, transparency laid over white, first frame of an animation.

    Raises PictureError (empty, truncated, damaged), PictureTooLargeError, UnsupportedPictureError.
    """
    return render_picture(open_picture(data, limits))


def open_picture(data: bytes, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """Read the header alone, and check it: format, mode and size are known, no pixel is decoded yet.

    Raises PictureError (empty), PictureTooLargeError, UnsupportedPictureError.
    """
    if not data:
        raise PictureError("The picture is empty (0 bytes). Send the bytes of a picture file.")
    if len(data) > limits.max_bytes:
        raise PictureTooLargeError(
            f"The picture has {len(data):,} bytes; the limit is {limits.max_bytes:,}. Send a smaller file."
        )
    # Pillow only warns between its own limit and twice that; ours is checked below, on the header alone. It also warns
    # of a phone's JPEG whose second picture is malformed: the first is all we want. The filters of warnings belong to
    # the whole process, so threads take turns.
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = _open(data, limits)
    _check_pixels(picture, limits)
    if scan_count(picture, data) > MAX_SCANS:
        raise PictureError(
            f"The JPEG has {scan_count(picture, data):,} scans; the limit is {MAX_SCANS}. Save it again as a plain one."
        )
    if isinstance(picture.fp, BoundedFile):
        picture.fp.allow_body()
    return picture


def render_picture(picture: Image.Image) -> Image.Image:
    """Decode what `open_picture` opened. Raises PictureError if the file is truncated or damaged."""
    with decoding(picture):
        return upright_rgb(picture)


@contextmanager
def decoding(picture: Image.Image) -> Iterator[None]:
    """A decoder's many errors in the body become one PictureError."""
    try:
        yield
    except TooManyPartsError as error:
        raise PictureError(f"The {picture.format} picture is cut into too many parts. Save it again.") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, OverflowError, TypeError, IndexError) as error:
        raise PictureError(
            f"The {picture.format} picture cannot be decoded ({error}). It is damaged or cut off; send it again."
        ) from error


def _open(data: bytes, limits: PictureLimits) -> ImageFile.ImageFile:
    try:
        picture = Image.open(BoundedFile(data), formats=limits.formats)
        # A phone's JPEG with a second picture behind it (depth, the other eye): the first is the photograph.
        return JpegImageFile(BoundedFile(data)) if picture.format == "MPO" else picture
    except TooManyPartsError as error:
        raise PictureError("The picture's header has too many parts. Save it again without its metadata.") from error
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(
            f"The picture's header claims too many pixels ({error}); the limit is {limits.max_pixels:,}."
        ) from error
    except Exception as error:  # Pillow's header parsers raise many kinds on hostile bytes
        raise _unsupported(data, limits) from error


def _unsupported(data: bytes, limits: PictureLimits) -> UnsupportedPictureError:
    name, allowed = foreign_format(data), ", ".join(limits.formats)
    if name and name not in limits.formats:
        return UnsupportedPictureError(f"The file is {name}, which is not read. Allowed: {allowed}. Convert it.")
    return UnsupportedPictureError(
        f"The bytes are not a readable picture (first bytes {data[:8]!r}). Allowed: {allowed}."
    )


def _check_pixels(picture: ImageFile.ImageFile, limits: PictureLimits) -> None:
    width_px, height_px = picture.size
    limit = pixel_limit(picture, limits.max_pixels)
    if width_px * height_px > limit:
        kind = " of a run-length BMP" if limit < limits.max_pixels else ""
        raise PictureTooLargeError(
            f"The picture is {width_px} x {height_px} = {width_px * height_px:,} pixels; "
            f"the limit{kind} is {limit:,}. Send a smaller one."
        )
    if width_px < 1 or height_px < 1:
        raise PictureError(f"The picture is {width_px} x {height_px} pixels. Send one with at least 1 x 1.")


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Orientation as the camera meant it, transparency over white, 8-bit RGB."""
    picture.load()
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # Pillow would copy an upright one too
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I;16", "I", "F")):
        return _from_deep_grey(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        return _over_white(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _over_white(picture: Image.Image) -> Image.Image:
    """Band by band: every step on the whole picture would be one more copy of it, four bytes a pixel."""
    width_px, height_px = picture.size
    flat = Image.new("RGB", picture.size)
    for top in range(0, height_px, BAND_ROWS):
        box = (0, top, width_px, min(height_px, top + BAND_ROWS))
        band = picture.crop(box).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        flat.paste(Image.alpha_composite(white, band).convert("RGB"), box)
    return flat


def _from_deep_grey(picture: Image.Image) -> Image.Image:
    """16-bit grey to 8-bit: Pillow's own convert clips at 255 and turns nearly everything white."""
    grey = picture.convert("I").point(lambda value: value / 257, "L")
    return grey.convert("RGB")
