"""Flickr30k: `results_20130124.token` as its authors give it, or the pipe-separated `results.csv` found on Kaggle.

Young et al. 2014, "From image descriptions to visual denotations". A token line is `1000092795.jpg#0<tab>Two young
guys .`; Flickr8k's `Flickr8k.token.txt` looks the same. A line of the CSV is `1000092795.jpg| 0| Two young guys .`, and
the one of 2199200615.jpg's last caption has lost its second pipe: `2199200615.jpg| 4   A dog runs across the grass .`
"""

import re
from typing import Literal

from pydantic import Field

from vlm_assets.data.sources.annotated import AnnotatedConfig, Annotation
from vlm_assets.data.sources.base import Source
from vlm_assets.data.sources.documents import address, read_lines
from vlm_assets.data.sources.files import Files
from vlm_assets.data.sources.listing import Listing
from vlm_assets.errors import SourceError

PATTERNS = ("results_*.token", "*.token.txt", "results.csv")
TOKEN_LINE = re.compile(r"\s*(?P<file>[^\t#]+)#(?P<number>\d+)\t(?P<caption>.*)")
CSV_LINE = re.compile(r"\s*(?P<file>[^|]+?)\s*\|\s*(?P<number>\d+)\s*(?:\||\s)\s*(?P<caption>.*)")  # or the lost pipe
CSV_HEADER = re.compile(r"\s*image_name\s*\|\s*comment_number\s*\|\s*comment\s*")
SHOWN_CHARACTERS = 80
HEADER_BYTES = 1000
# What the columns are called in captions.txt of Kaggle and in flickr_annotations_30k.csv of the hub.
PICTURES, CAPTIONS = ("image", "image_name", "filename"), ("caption", "comment", "raw")


class Flickr30kConfig(AnnotatedConfig):
    """Flickr30k's captions: results_20130124.token or results.csv."""

    kind: Literal["flickr30k"] = "flickr30k"
    annotations: str = Field(default="", description="name of the caption file; empty = results*.token or results.csv")

    def open(self) -> Source:
        """The source that this describes."""
        return self.open_annotated("flickr30k", self._read)

    def _read(self, annotations: Listing, _pictures: Listing) -> list[Annotation]:
        setting = "source.flickr30k.annotations"
        given = [self.annotations] if self.annotations else []
        try:
            name = annotations.annotations(given, PATTERNS, setting)[0]
        except SourceError as error:
            tables = (_table_hint(annotations.files, name) for name in annotations.matching("*.txt", "*.csv"))
            raise SourceError(f"{error}{next(filter(None, tables), '')}") from error
        return read_entries(annotations, name)


def read_entries(listing: Listing, name: str) -> list[Annotation]:
    """What the caption file says: one entry per picture, one per line that cannot be read."""
    lines = read_lines(listing.files, name)
    pattern = _pattern(lines, address(listing.files, name), _table_hint(listing.files, name))
    base = name.rpartition("/")[2]
    entries: dict[str, Annotation] = {}
    bad: list[Annotation] = []
    for number, line in enumerate(lines, start=1):
        match = pattern.fullmatch(line)
        if match:
            file, caption = match["file"], match["caption"].strip()
            entry = entries.setdefault(file, Annotation(f"{base}:{number} {file}", file, names=(file,)))
            entry.captions.update({caption: {}} if caption else {})
        elif line.strip() and not (number == 1 and CSV_HEADER.fullmatch(line)):
            detail = f"no picture, number and caption in {line[:SHOWN_CHARACTERS]!r}"
            bad.append(Annotation(f"{base}:{number}", reason="malformed_line", detail=detail))
    return [*entries.values(), *bad]


def _pattern(lines: list[str], where: str, table: str) -> re.Pattern[str]:
    """How the lines are built, told by the first one that is of either kind."""
    for line in lines:
        if CSV_HEADER.fullmatch(line) or CSV_LINE.fullmatch(line):
            return CSV_LINE
        if TOKEN_LINE.fullmatch(line):
            return TOKEN_LINE
    first = next(line for line in lines if line.strip())
    json = " A JSON split file is read by the source kind coco." if first.lstrip().startswith(("{", "[")) else table
    raise SourceError(
        f"{where} holds no captions of Flickr30k: no line is `name.jpg#0<tab>caption` or `name.jpg| 0| caption`; the "
        f"first is {first[:SHOWN_CHARACTERS]!r}.{json}"
    )


def _table_hint(files: Files, name: str) -> str:
    """The way out for captions in an ordinary table: the settings with which the kind `table` reads it."""
    with files.open(name) as file:
        header = [cell.strip().strip('"') for cell in file.readline(HEADER_BYTES).decode("utf-8", "replace").split(",")]
    picture, caption = (next((name for name in names if name in header), "") for names in (PICTURES, CAPTIONS))
    if not picture or not caption:
        return ""
    splits = ", split_column: split" if "split" in header else ""
    return (
        f" {name} is a table with a header, which the source kind table reads: table: {name}, picture_column: "
        f"{picture}, caption_columns: [{caption}]{splits}, and pictures: the folder of the pictures."
    )
