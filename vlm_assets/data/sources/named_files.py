"""Files by the names that a table gives them, which do not always agree with the disk's to the letter."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from vlm_assets.data.sources.files import FileInfo, inner_name

SHOWN_NEAR = 2


class NamedFiles:
    """The files below one root. A name finds the file that bears it; or else the only one that is spelled alike."""

    def __init__(self, infos: Iterable[FileInfo]) -> None:
        self._by_name = {info.name: info for info in infos}

    def __iter__(self) -> Iterator[FileInfo]:
        """All files, in their order."""
        return iter(self._by_name.values())

    def find(self, name: str) -> FileInfo | None:
        """The file, or None: "A.JPG" finds a.jpg, "sub\\b.jpg" sub/b.jpg, and a decomposed ä (macOS) a composed one."""
        exact = self._by_name.get(inner_name(name) or name)
        alike = [] if exact else self._alike.get(_alike(name), [])
        return exact or (self._by_name[alike[0]] if len(alike) == 1 else None)

    def missing(self, name: str, where: str) -> str:
        """Why `find` gave nothing, with the names that come near."""
        alike = self._alike.get(_alike(name), ())
        near = alike or self._by_stem.get(_stem(name), ())
        hint = " and ".join(near[:SHOWN_NEAR])
        if alike:
            return f"no picture {name} in {where}, and several that differ in spelling alone: {hint}"
        return f"no picture {name} in {where}" + (f"; there is {hint}" if hint else "")

    @cached_property
    def _alike(self) -> Mapping[str, Sequence[str]]:
        return _grouped(_alike, self._by_name)

    @cached_property
    def _by_stem(self) -> Mapping[str, Sequence[str]]:
        return _grouped(_stem, self._by_name)


def web_address(name: str) -> str:
    """What to say of a picture's name that is a URL; "" if it is none."""
    if not name.lower().startswith(("http://", "https://")):
        return ""
    return (
        f"{name} is a web address, and nothing is fetched from the web; img2dataset makes shards of such lists, which "
        "the source kind webdataset reads"
    )


def _grouped(key: Callable[[str], str], names: Iterable[str]) -> Mapping[str, Sequence[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[key(name)].append(name)
    return groups


def _alike(name: str) -> str:
    """Names that people take for one have one such form."""
    slashes = name.replace("\\", "/")
    return unicodedata.normalize("NFC", (inner_name(slashes) or slashes).casefold())


def _stem(name: str) -> str:
    """Without folders and extension."""
    base = _alike(name).rpartition("/")[2]
    return base.rpartition(".")[0] or base
