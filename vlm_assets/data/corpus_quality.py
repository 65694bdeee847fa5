"""What only shows when the captions of all pictures are seen beside each other: the same words again and again."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlm_assets.data.findings import Findings
from vlm_assets.data.quality import Fault, QualityLimits

PHRASE_WORDS = 3
FEW = 20  # pictures or captions: below this many no share means anything


def flag_corpus(rows: Sequence[Mapping[str, Any]], limits: QualityLimits, flagged: Findings) -> None:
    """Add what the captions of all rows show together."""
    for fault, row, caption, count in (*_frequent(rows, limits), *_phrases(rows, limits)):
        flagged.add(row, fault, caption, count)


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
