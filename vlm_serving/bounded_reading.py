"""Bounds on what a picture's parser and decoder do for a file, where neither its bytes nor its pixels bound them.

Pillow walks a header's parts in Python, and the runs of a run-length BMP: 20 MiB of empty parts, or 20 KB of short
runs, take it seconds in which other threads hardly run. And a JPEG may hold more than a million empty scans in 20 MiB,
each of which makes libjpeg go over every block of the picture: an hour.
"""

import io

from PIL import ImageFile

HEADER_READS = 4000  # a JPEG of 20 MiB takes 3 for each of at most 320 full segments, a PNG 4 for each chunk
BODY_READS = 200_000  # a PNG of 20 MiB in chunks of 1 KiB takes half of it
MAX_SCANS = 100  # progressive JPEGs have about ten
MAX_RUN_LENGTH_PIXELS = 4_000_000
START_OF_SCAN = b"\xff\xda"


class TooManyPartsError(Exception):
    """The file was read in more pieces than any honest one needs."""


class BoundedFile(io.BytesIO):
    """A file in memory that can be read only so often; TooManyPartsError beyond."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = HEADER_READS

    def allow_body(self) -> None:
        """The header is parsed: from here on it may be read as often as a body needs."""
        self._left = BODY_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As io.BytesIO.read."""
        self._left -= 1
        if self._left < 0:
            raise TooManyPartsError
        return super().read(size)


def scan_count(picture: ImageFile.ImageFile, data: bytes) -> int:
    """How many scans a JPEG that was just opened has at most; 0 for other formats.

    Inside a scan 0xFF is always followed by a zero or a restart marker, so what looks like a start of scan is one.
    """
    if picture.format != "JPEG" or picture.fp is None:
        return 0
    return 1 + data.count(START_OF_SCAN, picture.fp.tell())


def pixel_limit(picture: ImageFile.ImageFile, limit: int) -> int:
    """How many pixels the picture may have: `limit`, or fewer if it is decoded in Python."""
    decoders = {tile[0] for tile in picture.tile}
    return min(limit, MAX_RUN_LENGTH_PIXELS) if "bmp_rle" in decoders else limit
