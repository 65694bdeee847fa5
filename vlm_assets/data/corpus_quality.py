"""What only shows when captions are seen beside each other: contradictions, and the same words again and again."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlm_assets.data.findings import Findings
from vlm_assets.data.quality import Fault, QualityLimits

PHRASE_WORDS = 3
FEW = 20  # pictures or captions: below this many no share means anything
WORD = re.compile(r"[^\W_]+")
FUNCTION_WORDS = frozenset(
    WORD.findall(
        "a an the this that these those it its and or but of in on at to for from by with without as is are was be has "
        "have his her their your my s t"
    )
)


def flag_corpus(rows: Sequence[Mapping[str, Any]], limits: QualityLimits, flagged: Findings) -> None:
    """Add what the captions of all rows show together."""
    for fault, row, caption, count in (*_frequent(rows, limits), *_phrases(rows, limits)):
        flagged.add(row, fault, caption, count)


def conflicting_captions(row: Mapping[str, Any]) -> Fault | None:
    """Whether a later source row with the same pixels shares no content word with the first one.

    Captions of one source row, such as five people's descriptions, may differ as they like.
    """
    said: dict[int, list[str]] = {}
    for caption, number in zip(row["captions"], row["caption_rows"], strict=True):
        said.setdefault(number, []).append(caption)
    (_, first), *others = said.items()
    words = content_words(first)
    for number, captions in others:
        theirs = content_words(captions)
        if words and theirs and not any(_alike(one, other) for one in words for other in theirs):
            return Fault("conflicting_captions", f"'{first[0]}' and '{captions[0]}' ({row['source_rows'][number]})")
    return None


def content_words(captions: Sequence[str]) -> set[str]:
    """Lower-case words that are not function words."""
    return {word for caption in captions for word in WORD.findall(caption.lower())} - FUNCTION_WORDS


def _alike(one: str, other: str) -> bool:
    """ "shirt" and "tshirts" are no contradiction."""
    return one == other or (min(len(one), len(other)) >= 4 and (one in other or other in one))


def repetition(rows: Sequence[Mapping[str, Any]], flagged: Findings) -> list[dict[str, Any]]:
    """How much the captions repeat each other, below the limits too: by measure, the words and their share, 0 to 1."""
    captions = [caption for row in rows for caption in row["captions"]]
    boilerplate = sum(row["reason"] == "boilerplate" for row in flagged.rows)
    measures = {
        "boilerplate": ("", boilerplate),
        "frequent_caption": _most_common_phrase(captions, str),
        **{reason: _most_common_phrase(captions, part) for reason, _, part in ENDS},
    }
    return [
        {"measure": name, "words": words, "captions": count, "share": count / max(len(captions), 1)}
        for name, (words, count) in measures.items()
    ]


Found = tuple[Fault, Mapping[str, Any], str, int]


def _frequent(rows: Sequence[Mapping[str, Any]], limits: QualityLimits) -> Iterator[Found]:
    counts = Counter(caption for row in rows for caption in row["captions"])
    for caption, count in counts.most_common():
        if count < FEW or count <= limits.max_caption_share * len(rows):
            return
        example = next(row for row in rows if caption in row["captions"])
        detail = f"on {count:,} of {len(rows):,} pictures ({100 * count / len(rows):.1f} %)"
        yield Fault("frequent_caption", detail), example, caption, count


def _phrases(rows: Sequence[Mapping[str, Any]], limits: QualityLimits) -> Iterator[Found]:
    captions = [(row, caption) for row in rows for caption in row["captions"]]
    for reason, verb, part in ENDS:
        phrase, count = _most_common_phrase((caption for _, caption in captions), part)
        if count < FEW or count <= limits.max_phrase_share * len(captions):
            continue
        row, caption = next((row, text) for row, text in captions if part(text) == phrase)
        share = 100 * count / len(captions)
        detail = f"{count:,} of {len(captions):,} captions ({share:.1f} %) {verb} with '{phrase}'"
        yield Fault(reason, detail), row, caption, count


def _most_common_phrase(captions: Iterable[str], part: Callable[[str], str]) -> tuple[str, int]:
    counts = Counter(phrase for caption in captions if (phrase := part(caption)))
    return next(iter(counts.most_common(1)), ("", 0))


def _opening(caption: str) -> str:
    """The first words in small letters; "" of a caption that has no others."""
    words = caption.lower().split()
    return " ".join(words[:PHRASE_WORDS]) if len(words) > PHRASE_WORDS else ""


def _ending(caption: str) -> str:
    words = caption.lower().split()
    return " ".join(words[-PHRASE_WORDS:]) if len(words) > PHRASE_WORDS else ""


ENDS = (("common_opening", "begin", _opening), ("common_ending", "end", _ending))
