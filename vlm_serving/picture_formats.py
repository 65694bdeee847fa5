"""What a file is by its first bytes, where it is something that people send and that is not read here."""

MAGIC = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
)
# ISO/IEC 14496-12: `ftyp` and then the brands, the main one first
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC"}
GENERIC = (b"mif1", b"msf1")  # of either; the brands that follow tell which
HEAD_BYTES = 1024


def foreign_format(data: bytes) -> str:
    """The name of a format that is known and not read, such as HEIC; "" if the bytes are of none."""
    head = data[:HEAD_BYTES].lstrip()  # SVG is text
    if data[4:8] == b"ftyp":
        brands = [data[at : at + 4] for at in range(8, 40, 4)]
        found = [BRANDS[brand] for brand in brands if brand in BRANDS]
        return found[0] if found else "HEIF" if brands[0] in GENERIC else "MP4"
    if head.startswith(b"<?xml") and b"<svg" in head:
        return "SVG"
    return next((name for magic, name in MAGIC if data.startswith(magic) or head.startswith(magic)), "")
