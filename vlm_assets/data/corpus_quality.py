"""What only shows when captions are seen beside each other: contradictions, and the same words again and again."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    ends: tuple[tuple[str, str, Callable[[list[str]], list[str]]], ...] = (
        ("common_opening", "begin", lambda words: words[:PHRASE_WORDS]),
        ("common_ending", "end", lambda words: words[-PHRASE_WORDS:]),
    )
    captions = [(row, caption, caption.lower().split()) for row in rows for caption in row["captions"]]
    for reason, verb, part in ends:
        counts = Counter(" ".join(part(words)) for _, _, words in captions if len(words) > PHRASE_WORDS)
        for phrase, count in counts.most_common(1):
            if count < FEW or count <= limits.max_phrase_share * len(captions):
                continue
            row, caption = next((row, text) for row, text, words in captions if " ".join(part(words)) == phrase)
            detail = (
                f"{count:,} of {len(captions):,} captions ({100 * count / len(captions):.1f} %) {verb} with '{phrase}'"
            )
            yield Fault(reason, detail), row, caption, count
