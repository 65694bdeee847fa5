"""DeepFashion: the captions of DeepFashion-MultiModal, or the item descriptions of In-shop Clothes Retrieval.

MultiModal (Jiang et al. 2022, https://github.com/yumingj/DeepFashion-MultiModal): `captions.json` is one object, file
name -> caption. In-shop (Liu et al. 2016): `list_description_inshop.json` is a list of `item`, `color`, `description`
(the lines of a shop's page), its pictures are `img/WOMEN/Dresses/id_00000002/02_1_front.jpg`, and
`list_eval_partition.txt` tells which items train and which are searched (query and gallery). Pictures of one item are
one group in both.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from vlm_assets.data.sources.annotated import AnnotatedConfig, Annotation
from vlm_assets.data.sources.base import Source
from vlm_assets.data.sources.deepfashion_inshop import (
    DESCRIPTIONS,
    ITEM_ID,
    PICTURES,
    SHOWN_CHARACTERS,
    Text,
    find_pictures,
    inshop_entries,
    read_items,
    read_partition,
)
from vlm_assets.data.sources.documents import address, listed, read_json
from vlm_assets.data.sources.listing import Listing
from vlm_assets.errors import SourceError

CAPTIONS = "captions.json"
EXPECTED = f"{CAPTIONS} of DeepFashion-MultiModal, or {DESCRIPTIONS} of In-shop Clothes Retrieval"


class Pairs(list[tuple[str, Any]]):
    """A JSON object in which a name may stand twice."""


class DeepFashionConfig(AnnotatedConfig):
    """DeepFashion-MultiModal (captions.json) or In-shop Clothes Retrieval (list_description_inshop.json)."""

    kind: Literal["deepfashion"] = "deepfashion"
    annotations: str = Field(
        default="", description="name of the file; empty = captions.json, or else list_description_inshop.json"
    )
    description: Text = Field(
        default="first_sentence",
        description="In-shop: the description's first sentence, or all its lines as one long caption",
    )
    given_splits: bool = Field(
        default=True, description="In-shop: honour list_eval_partition.txt: query and gallery are test, val has none"
    )

    def open(self) -> Source:
        """The source that this describes."""
        return self.open_annotated("deepfashion", self._read)

    def _read(self, annotations: Listing, pictures: Listing) -> list[Annotation]:
        setting = "source.deepfashion.annotations"
        given = [self.annotations] if self.annotations else []
        name = annotations.annotations(given, (CAPTIONS, DESCRIPTIONS), setting)[0]
        document = read_json(annotations.files, name, EXPECTED, object_pairs_hook=_pairs_or_record)
        where = address(annotations.files, name)
        if isinstance(document, Pairs):
            return [*multimodal_entries(name, where, document)]
        items = read_items(where, document, self.description)
        shown = read_partition(annotations, honoured=self.given_splits) or find_pictures(pictures)
        return [*inshop_entries(name, items, shown)]


def multimodal_entries(name: str, where: str, captions: Pairs) -> Iterator[Annotation]:
    """Entries of `captions.json`, one per file name. Raises SourceError if none of its keys names a picture."""
    if not any(PurePosixPath(file).match(pattern) for file, _ in captions for pattern in PICTURES):
        keys = listed(file for file, _ in captions)
        raise SourceError(f"{where} names no picture; its keys are {keys}. Expected {EXPECTED}.")
    base = name.rpartition("/")[2]
    entries: dict[str, Annotation] = {}
    for file, caption in captions:
        item = ITEM_ID.search(file)
        place, group = f"{base} {file}", item[0] if item else ""
        if not isinstance(caption, str):
            detail = f"the caption is {str(caption)[:SHOWN_CHARACTERS]!r}, no text"
            yield Annotation(place, file, reason="malformed_caption", detail=detail)
        else:
            entry = entries.setdefault(file, Annotation(place, file, group=group, names=(file,)))
            entry.captions.update({caption.strip(): {}} if caption.strip() else {})
    yield from entries.values()


def _pairs_or_record(pairs: list[tuple[str, Any]]) -> Pairs | dict[str, Any]:
    """Items stay objects; the object of captions, whose names are files, keeps those that stand twice."""
    record = dict(pairs)
    return record if "item" in record or "description" in record else Pairs(pairs)
