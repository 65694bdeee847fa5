"""All files of a source, listed once, and found by name: as it is written, or by its end, in whatever folder."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property

from vlm_assets.data.sources.documents import listed, near
from vlm_assets.data.sources.files import FileInfo, Files, inner_name
from vlm_assets.errors import SourceError

DOCUMENTS = ("*.json", "*.csv", "*.token", "*.txt")


class Listing:
    """The files below one root. "a.jpg" also finds "images/a.jpg"; "../a.jpg" finds nothing."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def find(self, *names: str) -> list[FileInfo]:
        """The files that bear the first of the names that any file bears; several if they lie in several folders."""
        for name in names:
            inner = inner_name(name)
            if inner is None:
                continue
            if inner in self._by_name:
                return [self._by_name[inner]]
            ending = f"/{inner}"
            found = [info for info in self._by_base.get(_base(inner), ()) if info.name.endswith(ending)]
            if found:
                return found
        return []

    def matching(self, *patterns: str) -> list[str]:
        """Names, in order, of the files whose name without the folders matches one of the patterns."""
        bases = [base for base in self._by_base if any(fnmatchcase(base, pattern) for pattern in patterns)]
        return sorted(info.name for base in bases for info in self._by_base[base])

    def annotations(self, given: Sequence[str], patterns: Sequence[str], setting: str) -> list[str]:
        """The annotation files that a setting names; or, if it names none, those of the first pattern that any match.

        The least deep comes first. Raises SourceError if one is not there, or there several times.
        """
        if given:
            return [self._annotation(name, setting) for name in given]
        for pattern in patterns:
            names = sorted(self.matching(pattern), key=lambda name: (name.count("/"), name))
            if names:
                return names
        wanted, there = " and no ".join(patterns), listed(self.matching(*DOCUMENTS))
        raise SourceError(f"{self.files.uri} has no {wanted}; it has {there}. Put one there, or name it in {setting}.")

    def _annotation(self, name: str, setting: str) -> str:
        found = [info.name for info in self.find(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise SourceError(f"{self.files.uri} has {name!r} several times: {listed(found)}. Name one in {setting}.")
        there = self.matching(*DOCUMENTS)
        hint = near(name, there) or near(name, map(_base, there))
        raise SourceError(f"{self.files.uri} has no file {name!r}; it has {listed(there)}.{hint} Set {setting}.")

    @cached_property
    def _by_name(self) -> Mapping[str, FileInfo]:
        return {info.name: info for info in self.files.list()}

    @cached_property
    def _by_base(self) -> Mapping[str, Sequence[FileInfo]]:
        by_base: defaultdict[str, list[FileInfo]] = defaultdict(list)
        for info in self._by_name.values():
            by_base[_base(info.name)].append(info)
        return by_base


def _base(name: str) -> str:
    return name.rpartition("/")[2]
