"""COCO captions: `captions_*.json` as COCO gives them, or the split file of Karpathy, told apart by their keys.

COCO (https://cocodataset.org/#format-data): `images` with `id` and `file_name`, `annotations` with `image_id` and
`caption`. Karpathy and Fei-Fei 2015 (`dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`): `images`
with `filename`, `filepath` in COCO's case, `split`, and `sentences` of which `raw` is the caption.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field

from vlm_assets.data.sources.annotated import AnnotatedConfig, Annotation
from vlm_assets.data.sources.base import Slots, Source, UnusableRowError
from vlm_assets.data.sources.columns import split_of
from vlm_assets.data.sources.documents import address, listed, near, read_json
from vlm_assets.data.sources.listing import Listing
from vlm_assets.errors import SourceError

PATTERNS = ("dataset_*.json", "captions_*.json")
EXPECTED = "captions_*.json of COCO, or a Karpathy split such as dataset_coco.json"
UNREAD = ("tokens", "sentids", "coco_url", "flickr_url", "date_captured")  # half of the memory, were they kept
NAME_OF_2014 = re.compile(r"COCO_[a-z]+2014_(\d{12}\.jpg)")  # the same pictures have bare numbers since 2017

Record = Mapping[str, Any]


class CocoConfig(AnnotatedConfig):
    """COCO captions (captions_*.json) or a Karpathy split file (dataset_*.json)."""

    kind: Literal["coco"] = "coco"
    annotations: list[str] = Field(
        default=[],
        description="names of the annotation files; empty = dataset_*.json if there is one, or captions_*.json",
    )
    given_splits: bool = Field(
        default=True, description="honour the split file's train, restval, val and test; captions_*.json give none"
    )

    def open(self) -> Source:
        """The source that this describes."""
        return self.open_annotated("coco", self._read)

    def _read(self, annotations: Listing, _pictures: Listing) -> list[Annotation]:
        setting = "source.coco.annotations"
        names = annotations.annotations(self.annotations, PATTERNS, setting)
        if not self.annotations and len(names) > 1 and fnmatchcase(names[0], f"*{PATTERNS[0]}"):
            raise SourceError(
                f"{annotations.files.uri} has several split files: {listed(names)}. Name one in {setting}."
            )
        return [entry for name in names for entry in read_entries(annotations, name, given_splits=self.given_splits)]


def read_entries(listing: Listing, name: str, *, given_splits: bool) -> list[Annotation]:
    """What one file of either format says. Raises SourceError if it is of neither."""
    where = address(listing.files, name)
    document = read_json(listing.files, name, EXPECTED, object_hook=_without_unread)
    keys = sorted(map(str, document)) if isinstance(document, dict) else []
    images = _records(document, "images")
    annotations = _records(document, "annotations")
    if images is not None and any("sentences" in image for image in images):
        return [*karpathy_entries(name, where, images, given_splits)]
    if images is not None and annotations is not None:
        return [*caption_entries(name, where, images, annotations)]
    raise SourceError(
        f"{where} is neither a captions file of COCO (keys images and annotations) nor a Karpathy split (images with "
        f"sentences); it has {'the keys ' + listed(keys) if keys else 'no keys'}. Expected {EXPECTED}."
    )


def caption_entries(
    name: str, where: str, images: Sequence[Record], annotations: Sequence[Record]
) -> Iterator[Annotation]:
    """Entries of `captions_*.json`: one per image, one per annotation or id that cannot be used."""
    _require("file_name", images, where, "images", "It must name the picture's file.")
    _require("caption", annotations, where, "annotations", "instances_*.json hold boxes; use captions_*.json.")
    base = name.rpartition("/")[2]
    folder = base.removeprefix("captions_").removesuffix(".json")  # captions_val2014.json lies beside val2014/
    captions: defaultdict[str, list[str]] = defaultdict(list)
    files: defaultdict[str, dict[str, None]] = defaultdict(dict)
    bad: list[Annotation] = []
    for number, image in enumerate(images, start=1):
        image_id, file = image.get("id"), image.get("file_name")
        if image_id is None or not isinstance(file, str):
            detail = f"id is {image_id!r}, file_name is {file!r}"
            bad.append(Annotation(f"{base} image number {number}", reason="malformed_image", detail=detail))
        else:
            files[str(image_id)][file] = None
    for annotation in annotations:
        image_id, caption = str(annotation.get("image_id")), annotation.get("caption")
        place = f"{base} annotation {annotation.get('id')}"
        if image_id not in files:
            bad.append(Annotation(place, reason="unknown_image_id", detail=f"no image has the id {image_id}"))
        elif not isinstance(caption, str):
            bad.append(Annotation(place, reason="malformed_annotation", detail=f"caption is {caption!r}, no text"))
        else:
            captions[image_id].append(caption)
    for image_id, file_names in files.items():
        place = f"{base} image {image_id}"
        if len(file_names) > 1:
            detail = f"the id {image_id} stands for {listed(file_names)}"
            yield from (Annotation(place, file, reason="duplicate_id", detail=detail) for file in file_names)
        else:
            file = next(iter(file_names))
            yield Annotation(place, file, _clean(captions[image_id]), names=_names(folder, file))
    yield from bad


def karpathy_entries(name: str, where: str, images: Sequence[Record], given_splits: bool) -> Iterator[Annotation]:
    """Entries of a split file, one per image."""
    _require("filename", images, where, "images", "It must name the picture's file.")
    base = name.rpartition("/")[2]
    for number, image in enumerate(images, start=1):
        file, sentences = image.get("filename"), image.get("sentences")
        if not isinstance(file, str) or not isinstance(sentences, list):
            detail = f"filename is {file!r}, sentences is {type(sentences).__name__}"
            yield Annotation(f"{base} image number {number}", reason="malformed_image", detail=detail)
            continue
        texts = [sentence.get("raw") for sentence in sentences if isinstance(sentence, dict)]
        place = f"{base} image {file}"
        try:
            split = split_of(image.get("split", "")) if given_splits else ""
        except UnusableRowError as fault:
            yield Annotation(place, file, reason=fault.reason, detail=str(fault))
            continue
        captions = _clean(text for text in texts if isinstance(text, str))
        names = _names(str(image.get("filepath", "")), file)
        yield Annotation(place, file, captions, split=split, names=names)


def _names(folder: str, file: str) -> tuple[str, ...]:
    names = [f"{folder}/{file}"] if folder else []
    names.append(file)
    bare = NAME_OF_2014.fullmatch(file)
    return (*names, bare[1]) if bare else tuple(names)


def _require(key: str, records: Sequence[Record], where: str, what: str, advice: str) -> None:
    """Raise SourceError if there are records and none of them has the key."""
    if records and not any(key in record for record in records):
        found = {str(name) for record in records for name in record}
        raise SourceError(f"{where}: {what} have no {key!r}; they have {listed(found)}.{near(key, found)} {advice}")


def _records(document: Any, key: str) -> list[Record] | None:
    """The list of objects under a key; None if there is none."""
    value = document.get(key) if isinstance(document, dict) else None
    return [item if isinstance(item, dict) else {} for item in value] if isinstance(value, list) else None


def _clean(captions: Iterable[str]) -> dict[str, Slots]:
    return {text: {} for caption in captions if (text := caption.strip())}


def _without_unread(record: dict[str, Any]) -> dict[str, Any]:
    for key in UNREAD:
        record.pop(key, None)
    return record
