"""Rows of the source that show one picture and say different things of it: a dress here, shoes there.

Five people who describe a photograph do not contradict each other, though two of their sentences may well have no word
in common. What tells a contradiction from that is a label. A caption of few words names what is to be seen, and who
describes the same at length names it, too: of 340 pairs of captions of 34 photographs of Flickr8k, 30 had no word of
content in common, and none of those in which one caption had at most three such words. So two rows are at odds

- if they declare different values of a slot, or
- if no word leads from one to the other, not even by way of other rows, and one side of them has labels only: captions
  of at most three words of content.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from vlm_assets.data.clusters import Clusters
from vlm_assets.data.dedup import Links
from vlm_assets.data.quality import Fault
from vlm_assets.data.tables import Row

MAX_LABEL_WORDS = 3
MAX_STATEMENTS = 16  # different ones that are compared: of a placeholder picture with 10,000 rows the first will do
WORD = re.compile(r"[^\W_]+")
NO_CONTENT = frozenset(
    WORD.findall(
        "a an the this that these those it its and or but of in on at to for from by with without as is are was be has "
        "have his her their your my s t pair pairs piece set kind photo photograph picture image"
    )
)


class Statement(NamedTuple):
    """What one row of the source says of its picture."""

    source_row: str
    caption: str
    words: frozenset[str]
    slots: frozenset[tuple[str, str]]


def contradictions(pictures: Mapping[int, Row], links: Links) -> Iterator[tuple[int, Fault]]:
    """Pictures (by number) whose own rows, or whose near duplicates' rows, contradict each other; each once."""
    seen: set[int] = set()
    for at, picture in pictures.items():
        found = contradiction(statements(picture)) if len(picture["source_rows"]) > 1 else None
        if found:
            seen.add(at)
            yield at, _fault(*found)
    for first, second, _ in links.rows():
        if first in pictures and second in pictures and not {first, second} <= seen:
            found = contradiction(statements(pictures[first]), statements(pictures[second]))
            if found:
                yield from ((at, _fault(*found)) for at in (first, second) if at not in seen)
                seen |= {first, second}


def contradiction(ones: Sequence[Statement], others: Sequence[Statement] = ()) -> tuple[Statement, Statement] | None:
    """The first two of `ones` that contradict each other; or, if there are `others`, one of each."""
    said = [*ones, *others]
    side = _sides(said)
    words = {of: max(len(said[at].words) for at in range(len(said)) if side[at] == of) for of in side}
    for one, other in combinations(range(len(said)), 2):
        if others and not one < len(ones) <= other:
            continue
        label = min(words[side[one]], words[side[other]]) <= MAX_LABEL_WORDS
        if _slots_differ(said[one], said[other]) or (side[one] != side[other] and label):
            return said[one], said[other]
    return None


def statements(picture: Row) -> list[Statement]:
    """What the picture's rows say, each statement once, up to MAX_STATEMENTS."""
    slots: list[Mapping[str, str]] = json.loads(picture["slots"]) or [{}] * len(picture["captions"])
    found: dict[tuple[frozenset[str], frozenset[tuple[str, str]]], Statement] = {}
    for where, said in zip(picture["source_rows"], picture["row_captions"], strict=True):
        captions = [picture["captions"][number] for number in said]
        words = content_words(captions)
        declared = frozenset((name, value) for number in said for name, value in slots[number].items() if value)
        if words and len(found) < MAX_STATEMENTS:
            found.setdefault((words, declared), Statement(where, captions[0], words, declared))
    return list(found.values())


def content_words(captions: Sequence[str]) -> frozenset[str]:
    """Lower-case words that say what there is to see."""
    return frozenset(word for caption in captions for word in WORD.findall(caption.lower())) - NO_CONTENT


def _fault(one: Statement, other: Statement) -> Fault:
    said = f"'{one.caption}' ({one.source_row}) and '{other.caption}' ({other.source_row})"
    return Fault("conflicting_captions", said)


def _sides(said: Sequence[Statement]) -> list[int]:
    """By statement: the oldest that words lead to."""
    sides: Clusters[int] = Clusters()
    for one, other in combinations(range(len(said)), 2):
        if _related(said[one], said[other]):
            sides.join(one, other)
    return [sides.find(at) for at in range(len(said))]


def _related(one: Statement, other: Statement) -> bool:
    """Do they share a word or the value of a slot?"""
    if one.slots & other.slots or one.words & other.words:
        return True
    return any(_alike(word, another) for word in one.words for another in other.words)


def _slots_differ(one: Statement, other: Statement) -> bool:
    """Is there a slot of which both declare values, and not one in common?"""
    shared = {name for name, _ in one.slots} & {name for name, _ in other.slots}
    return bool(shared - {name for name, _ in one.slots & other.slots})


def _alike(one: str, other: str) -> bool:
    """ "shirt" and "tshirts", "dog" and "dogs" are no contradiction."""
    if min(len(one), len(other)) >= 4:
        return one in other or other in one
    return one == other + "s" or other == one + "s"
