"""Pictures taken apart into the source's rows that show them, and put together again from those that stay.

Who trains is decided row by row, in the order of the source: a row that shows an old picture is a near duplicate like
any other, and what it brings (a group, a prescribed split, a held-out caption) cannot move what was there before.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlm_assets.data.split import Assignment, Candidate
from vlm_assets.data.tables import Row, slots_json

BY_ROW = ("source_rows", "row_numbers", "row_captions", "groups", "given_splits")


class Place(NamedTuple):
    """Where a candidate comes from: which picture, and which of the picture's source rows."""

    picture: int
    row: int


def candidates(pictures: Sequence[Row]) -> tuple[list[Candidate], list[Place]]:
    """One candidate per source row that says a caption, in the order of the source; `look` is the picture's number."""
    places = [
        (number, Place(at, row))
        for at, picture in enumerate(pictures)
        for row, number in enumerate(picture["row_numbers"])
        if picture["row_captions"][row]
    ]
    ordered = [place for _, place in sorted(places)]
    return [_candidate(pictures[place.picture], place) for place in ordered], ordered


def with_captions(picture: Row, kept: Sequence[int]) -> dict[str, Any]:
    """The picture with some of its captions, by number."""
    slots: list[Mapping[str, str]] = json.loads(picture["slots"]) or [{}] * len(picture["captions"])
    new = {old: number for number, old in enumerate(kept)}
    return {
        **picture,
        "captions": [picture["captions"][old] for old in kept],
        "slots": slots_json([slots[old] for old in kept]),
        "row_captions": [[new[old] for old in said if old in new] for said in picture["row_captions"]],
    }


def with_rows(picture: Row, kept: Sequence[int]) -> dict[str, Any]:
    """The picture with some of its source rows, by number, and with what these say."""
    fewer = {name: [picture[name][row] for row in kept] for name in BY_ROW}
    said = sorted({caption for row in fewer["row_captions"] for caption in row})
    return with_captions({**picture, **fewer, "copies": len(kept)}, said)


def put_together(pictures: Sequence[Row], places: Sequence[Place], assignment: Assignment) -> dict[int, dict[str, Any]]:
    """By picture's number: those of which a row stays, with these rows, their split and their cluster."""
    rows: dict[int, list[int]] = {}
    for position in assignment.split:
        rows.setdefault(places[position].picture, []).append(position)
    return {
        at: {
            **with_rows(pictures[at], [places[position].row for position in rows[at]]),
            "split": assignment.split[rows[at][0]],
            "cluster": assignment.cluster[rows[at][0]],
        }
        for at in sorted(rows)
    }


def _candidate(picture: Row, place: Place) -> Candidate:
    slots: list[Mapping[str, str]] = json.loads(picture["slots"]) if picture["slots"] != "[]" else []
    return Candidate(
        picture["image_id"],
        group=picture["groups"][place.row],
        split=picture["given_splits"][place.row],
        slots=tuple(slots[caption] for caption in picture["row_captions"][place.row]) if slots else (),
        look=place.picture,
    )
