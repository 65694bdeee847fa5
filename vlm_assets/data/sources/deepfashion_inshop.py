"""In-shop Clothes Retrieval of DeepFashion: items described in the words of a shop's page, and their pictures.

Liu et al. 2016, "DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations".
`list_description_inshop.json` is a list of `item`, `color` and `description` (lines of text);
`list_eval_partition.txt` lists all pictures, with their item and whether they train, are searched for (query) or
searched in (gallery). Its first line is their number, its second the names of the columns.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlm_assets.data.sources.annotated import Annotation
from vlm_assets.data.sources.base import Slots
from vlm_assets.data.sources.documents import address, listed, near, read_lines
from vlm_assets.data.sources.listing import Listing
from vlm_assets.data.sources.openmoji_names import says
from vlm_assets.errors import SourceError

DESCRIPTIONS, PARTITION = "list_description_inshop.json", "list_eval_partition.txt"
COLUMNS = ["image_name", "item_id", "evaluation_status"]
STATUS = {"train": "train", "query": "test", "gallery": "test"}
ITEM_ID = re.compile(r"id_\d{8}")
PICTURES = ("*.jpg", "*.jpeg", "*.png", "*.webp")
SEGMENTATION = "_segment."  # 02_1_front_segment.png is a mask, no picture
SENTENCE = re.compile(r".+?(?<!\b[A-Z])[.!?][\"'”’)]*(?=\s+[\"'“‘(A-Z])", re.DOTALL)  # not "5.5 in. heel", "J. Crew"

SHOWN_CHARACTERS = 80

Record = Mapping[str, Any]
Text = Literal["first_sentence", "whole"]


@dataclass
class Item:
    """What the shop says of one item; with a fault, what it should not say."""

    color: str = ""
    captions: dict[str, Slots] = field(default_factory=dict[str, Slots])  # in the order met
    fault: str = ""


@dataclass(frozen=True)
class ItemPicture:
    """One picture of an item, and what the evaluation partition uses it for."""

    file: str
    item: str
    status: str = ""


def inshop_entries(name: str, items: Mapping[str, Item], pictures: list[ItemPicture]) -> Iterator[Annotation]:
    """Entries of the pictures, then of the items of which there is none."""
    base = name.rpartition("/")[2]
    for picture in pictures:
        item = items.get(picture.item, Item())
        yield Annotation(
            f"{base} {picture.item} {picture.file}",
            picture.file,
            dict(item.captions),
            group=picture.item,
            split=STATUS.get(picture.status, ""),
            detail=item.fault,
            names=(picture.file, picture.file.removeprefix("img/")),
            reason="malformed_item" if item.fault else "",
        )
    shown = {picture.item for picture in pictures}
    for item_id, item in items.items():
        if item_id not in shown:
            reason = "malformed_item" if item.fault else "missing_picture"
            yield Annotation(f"{base} {item_id}", reason=reason, detail=item.fault or f"no picture of {item_id}")


def read_items(where: str, document: object, text: Text) -> dict[str, Item]:
    """Items of `list_description_inshop.json` by id. Raises SourceError if it is built otherwise."""
    records: list[Any] = document if isinstance(document, list) else []  # pyright: ignore[reportUnknownVariableType]
    found = {str(key) for record in records if isinstance(record, dict) for key in record}
    for key in ("item", "description"):
        if records and key not in found:
            raise SourceError(
                f"{where}: the list's objects have no {key!r}; they have {listed(found)}.{near(key, found)} "
                f"Expected {DESCRIPTIONS}."
            )
    if not records:
        raise SourceError(f"{where} holds no list of items. Expected {DESCRIPTIONS}.")
    items: dict[str, Item] = {}
    for number, record in enumerate(records, start=1):
        values: Record = record if isinstance(record, dict) else {}  # pyright: ignore[reportUnknownVariableType]
        item = items.setdefault(str(values.get("item") or f"entry number {number}"), Item())
        description = values.get("description") or []
        lines: list[Any] = [description] if isinstance(description, str) else description
        if "item" not in values or not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            item.fault = f"expected item, color and description (lines of text), found {str(record)[:SHOWN_CHARACTERS]}"
            continue
        item.color = item.color or str(values.get("color") or "").lower().replace("-", " ")
        caption = caption_of([line.strip() for line in lines if line.strip()], text)
        if caption:
            item.captions[caption] = {"color": item.color} if item.color and says(caption.lower(), item.color) else {}
    return items


def caption_of(lines: Sequence[str], text: Text) -> str:
    """The caption in a shop's description: its first sentence, or all of it; "" if it is empty."""
    if text == "whole" or not lines:
        return " ".join(lines)
    sentence = SENTENCE.match(lines[0])
    return sentence[0] if sentence else lines[0]


def read_partition(listing: Listing, *, honoured: bool) -> list[ItemPicture]:
    """The pictures that the evaluation partition lists; none if there is no such file. SourceError if it is damaged.

    Unless it is `honoured`, their status is left out.
    """
    names = listing.matching(PARTITION)
    if not names:
        return []
    where = address(listing.files, names[0])
    lines = [line.split() for line in read_lines(listing.files, names[0])]
    if len(lines) < 2 or lines[1] != COLUMNS:
        seen = " ".join(lines[1]) if len(lines) > 1 else "nothing"
        raise SourceError(f"{where}:2: expected {' '.join(COLUMNS)}, found {seen!r}.")
    pictures: list[ItemPicture] = []
    for number, fields in enumerate(lines[2:], start=3):
        if not fields:
            continue
        if len(fields) != 3 or fields[2] not in STATUS:
            raise SourceError(f"{where}:{number}: expected a name, an item and {', '.join(STATUS)}; found {fields}.")
        pictures.append(ItemPicture(fields[0], fields[1], fields[2] if honoured else ""))
    if str(len(pictures)) != " ".join(lines[0]):
        raise SourceError(
            f"{where} announces {' '.join(lines[0])} pictures and lists {len(pictures)}. Fetch the file again."
        )
    return pictures


def find_pictures(listing: Listing) -> list[ItemPicture]:
    """The pictures that lie in folders called after items."""
    names = [name for name in listing.matching(*PICTURES) if SEGMENTATION not in name]
    found = ((name, [part for part in name.split("/")[:-1] if ITEM_ID.fullmatch(part)]) for name in names)
    return [ItemPicture(name, items[-1]) for name, items in found if items]
