"""What COCO, Flickr30k and DeepFashion have in common: annotation files that name pictures, and pictures by name."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import dagster as dg
from pydantic import Field

from vlm_assets.contracts import canonical_json
from vlm_assets.data.sources.base import Attribution, Log, SourceRow, silent
from vlm_assets.data.sources.entries import Entry
from vlm_assets.data.sources.files import FileInfo, in_threads, open_files
from vlm_assets.data.sources.listing import Listing
from vlm_assets.errors import SourceError, UnreadableFileError
from vlm_serving.progress import Progress


@dataclass
class Annotation(Entry):
    """What the annotations say about one picture; or, with a reason, a piece of them that cannot be used."""

    names: tuple[str, ...] = ()  # what the picture's file may be called, the most exact first


Reader = Callable[[Listing, Listing], Sequence[Annotation]]  # of the annotations' files and of the pictures'


class AnnotatedConfig(dg.Config):
    """Where annotations and pictures lie, and whose they are."""

    path: str = Field(min_length=1, description="folder or s3://bucket/prefix with the annotations")
    pictures: str = Field(default="", description="folder or s3://bucket/prefix of the pictures; empty = as path")
    title: str = Field(default="", description="what the set is called in the model card; empty = the folder's name")
    licence: str = Field(default="", description="what is allowed with the pictures; travels to the model card")

    def open_annotated(self, kind: str, read: Reader) -> "AnnotatedSource":
        """The source of which `read` knows the format."""
        annotations = Listing(open_files(self.path, f"source.{kind}.path"))
        pictures = Listing(open_files(self.pictures, f"source.{kind}.pictures")) if self.pictures else annotations
        title = self.title or self.path.rstrip("/").rpartition("/")[2]
        attribution = Attribution(title, f"Pictures and captions of {title}", self.licence)
        return AnnotatedSource(annotations, pictures, read, attribution, f"source.{kind}.pictures")


class AnnotatedSource:
    """Annotations are read whole (about 1 kB per picture); pictures stream, a few read ahead."""

    def __init__(
        self, annotations: Listing, pictures: Listing, read: Reader, attribution: Attribution, setting: str
    ) -> None:
        self.annotations, self.pictures = annotations, pictures
        self.attribution = attribution
        self._read = read
        self._setting = setting

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of all that was read of the annotations, and of the content of each picture that they name."""
        state = hashlib.sha256()
        progress = Progress("fingerprint", len(self._entries), log)
        for entry, digest in in_threads(lambda entry: (entry, self._digest(entry)), self._entries):
            said = {**vars(entry), "captions": [*entry.captions.items()], "picture": digest}  # their order counts
            state.update(canonical_json(said).encode("utf-8", "surrogatepass"))
            progress.advance()
        progress.done()
        return state.hexdigest()

    def total(self, log: Log = silent) -> int:
        """Pictures that the annotations name, and pieces of annotations that cannot be used."""
        return len(self._entries)

    def __iter__(self) -> Iterator[SourceRow]:
        """Yield the rows in the annotations' order."""
        yield from in_threads(self._row, self._entries)

    @cached_property
    def _entries(self) -> Sequence[Annotation]:
        entries = self._read(self.annotations, self.pictures)
        named = [entry for entry in entries if entry.names]
        if named and not any(self.pictures.find(*entry.names) for entry in named):
            raise SourceError(
                f"None of the {len(named):,} pictures that the annotations name is in {self.pictures.files.uri}; the "
                f"first is {named[0].file_name!r}. Set {self._setting} to the folder of the pictures."
            )
        return entries

    def _row(self, entry: Annotation) -> SourceRow:
        uri = self.pictures.files.uri
        if entry.reason:
            return entry.unusable(entry.reason, entry.detail)
        if not entry.captions:
            return entry.unusable("no_caption", "the annotations hold no caption of this picture")
        found = self._pictures_of(entry)
        if not found:
            return entry.unusable("missing_picture", f"no picture {entry.file_name} in {uri}")
        if len(found) > 1:
            names = " and ".join(info.name for info in found[:2])
            return entry.unusable("ambiguous_picture", f"different pictures of this name in {uri}: {names}")
        return entry.read(self.pictures.files, found[0])

    def _pictures_of(self, entry: Annotation) -> list[FileInfo]:
        """The picture; none, or several of which nobody can tell which is meant. Equal copies count as one."""
        found = self.pictures.find(*entry.names)
        if len(found) > 1 and len({self.pictures.files.digest(info) for info in found}) == 1:
            return found[:1]
        return found

    def _digest(self, entry: Annotation) -> list[str]:
        found = self.pictures.find(*entry.names)
        try:
            return [self.pictures.files.digest(info) for info in found]
        except UnreadableFileError as error:
            return [str(error)]
