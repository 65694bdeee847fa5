"""Values that settings compare with a table's: one that differs in capitals or blanks alone would never apply."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from vlm_assets.errors import SourceError

Condition = tuple[str, str, Collection[str]]  # the setting, the column, the values that it names


class Conditions:
    """Sees the rows go by and keeps what is spelled like a value that a setting names."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._conditions = conditions
        self._wanted: defaultdict[str, set[str]] = defaultdict(set)
        self._found: defaultdict[str, set[str]] = defaultdict(set)
        for _, column, values in conditions:
            self._wanted[column].update(map(_alike, values))

    def see(self, values: Mapping[str, str]) -> None:
        """Take one row."""
        for column, wanted in self._wanted.items():
            if _alike(values[column]) in wanted:
                self._found[column].add(values[column])

    def check(self, where: str) -> None:
        """Raise SourceError on a value that no row has, though rows have it in another spelling."""
        for setting, column, values in self._conditions:
            for value in sorted(set(values) - self._found[column]):
                near = [other for other in sorted(self._found[column]) if _alike(other) == _alike(value)]
                if near:
                    raise SourceError(f"{setting}.{column} names {value!r}, and {where} has {near[0]!r}. Write it so.")


def _alike(value: str) -> str:
    return value.lower().strip()
