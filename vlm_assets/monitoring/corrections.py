"""Which corrections may teach: what people said over POST /v1/feedback, less what is unusable, repeated or vandalism.

Pure: rows in, the accepted in order of arrival and the refused with a countable reason out.
"""

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vlm_assets.data.caption_quality import caption_faults
from vlm_assets.data.quality import DEFAULT_LIMITS
from vlm_assets.data.sources.base import Attribution, Log, SourceRow, silent
from vlm_serving.feedback_log import FeedbackRow

HOUR_S = 3600.0
MONOTONY_ROWS = 20  # a key with fewer corrections is not judged for saying the same of everything
ATTRIBUTION = Attribution("Corrections", "Pictures and captions sent by users of the captioning service.")


@dataclass(frozen=True)
class TrustRules:
    """Whom to believe. A key that is not `trusted` must be joined by others until `agreement` keys say the same."""

    trusted: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()
    agreement: int = 1
    max_per_key_hour: int = 500
    max_same_share: float = 0.5
    refused_words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Correction:
    """A caption that may teach, with the picture that it is about."""

    row: FeedbackRow
    picture: bytes

    @property
    def sha256(self) -> str:
        """Of the uploaded file."""
        return hashlib.sha256(self.picture).hexdigest()


@dataclass
class Sifted:
    """The accepted, in order of arrival, and the refused as (row, reason, detail)."""

    accepted: list[Correction] = field(default_factory=list[Correction])
    refused: list[tuple[FeedbackRow, str, str]] = field(default_factory=list[tuple[FeedbackRow, str, str]])

    def refuse(self, row: FeedbackRow, reason: str, detail: str) -> None:
        """Note why a correction does not teach."""
        self.refused.append((row, reason, detail))

    def reasons(self) -> dict[str, int]:
        """How many were refused, by reason, most frequent first."""
        return dict(Counter(reason for _, reason, _ in self.refused).most_common())


def sift(
    rows: Sequence[FeedbackRow],
    picture_of: Callable[[str], bytes | None],
    captions: Mapping[str, str],
    rules: TrustRules,
) -> Sifted:
    """Judge corrections, oldest first. `captions`: what the model said, by caption id, as far as it is known."""
    sifted = Sifted()
    words = _word_pattern(rules.refused_words)
    monotonous = _monotonous(rows, rules)
    times: defaultdict[str, list[float]] = defaultdict(list)
    said: set[tuple[str, str, str]] = set()
    for row in rows:
        fault = _fault(row, captions.get(row.caption_id), rules, words, monotonous)
        if fault is None and not _within_rate(times[row.key_name], row.time_unix_s, rules.max_per_key_hour):
            fault = ("over_the_rate", f"more than {rules.max_per_key_hour} in an hour from key {_shown(row)}")
        picture = None if fault else picture_of(row.caption_id)
        if fault is None and picture is None:
            fault = ("no_picture", f"no picture of caption {row.caption_id} was kept")
        if fault or picture is None:
            sifted.refuse(row, *(fault or ("no_picture", "")))
            continue
        correction = Correction(row, picture)
        mark = (correction.sha256, row.caption.casefold(), row.key_name)
        if mark in said:
            sifted.refuse(row, "repeated", "the same key said the same of the same picture before")
            continue
        said.add(mark)
        sifted.accepted.append(correction)
    return _agreed(_latest_of_each_key(sifted), rules)


def _fault(
    row: FeedbackRow,
    given: str | None,
    rules: TrustRules,
    words: "re.Pattern[str] | None",
    monotonous: Collection[tuple[str, str]],
) -> tuple[str, str] | None:
    """What is wrong with the text or its sender."""
    if row.key_name in rules.blocked:
        return "blocked_key", f"key {_shown(row)} is blocked"
    if given is not None and given.casefold() == row.caption.casefold():
        return "says_the_same", "it repeats what the model said"
    if words and (found := words.search(row.caption)):
        return "refused_word", f"{found.group(0)!r} is among the refused words"
    fatal = next((fault for fault in caption_faults(row.caption) if fault.drops(DEFAULT_LIMITS)), None)
    if fatal:
        return fatal.reason, fatal.detail
    if (row.key_name, row.caption.casefold()) in monotonous:
        return "says_it_of_everything", f"key {_shown(row)} says it of most pictures"
    return None


def _monotonous(rows: Sequence[FeedbackRow], rules: TrustRules) -> set[tuple[str, str]]:
    """(key, caption) where one caption makes up too much of what a key that is not trusted says."""
    totals = Counter(row.key_name for row in rows)
    pairs = Counter((row.key_name, row.caption.casefold()) for row in rows)
    return {
        pair
        for pair, count in pairs.items()
        if pair[0] not in rules.trusted
        and totals[pair[0]] >= MONOTONY_ROWS
        and count > rules.max_same_share * totals[pair[0]]
    }


def _within_rate(times: list[float], now_s: float, limit: int) -> bool:
    """Whether a key is below its rate; what is over it does not count."""
    while times and times[0] <= now_s - HOUR_S:
        times.pop(0)
    if len(times) >= limit:
        return False
    times.append(now_s)
    return True


def _latest_of_each_key(sifted: Sifted) -> Sifted:
    """Who corrects a picture twice means the second."""
    latest = {(one.sha256, one.row.key_name): one for one in sifted.accepted}
    kept = Sifted(refused=list(sifted.refused))
    for one in sifted.accepted:
        if latest[(one.sha256, one.row.key_name)] is one:
            kept.accepted.append(one)
        else:
            kept.refuse(one.row, "corrected_again", "the same key corrected this picture later")
    return kept


def _agreed(sifted: Sifted, rules: TrustRules) -> Sifted:
    """Only what a trusted key says, or enough others say alike; of one picture and caption the first row stays."""
    voices: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for one in sifted.accepted:
        voices[(one.sha256, one.row.caption.casefold())].add(one.row.key_name)
    kept, seen = Sifted(refused=list(sifted.refused)), set[tuple[str, str]]()
    for one in sifted.accepted:
        mark = (one.sha256, one.row.caption.casefold())
        if not voices[mark] & rules.trusted and len(voices[mark]) < rules.agreement:
            kept.refuse(one.row, "nobody_agrees", f"{len(voices[mark])} of {rules.agreement} keys say so")
        elif mark in seen:
            kept.refuse(one.row, "said_by_others", "another key said the same of the same picture")
        else:
            seen.add(mark)
            kept.accepted.append(one)
    return kept


class CorrectionSource:
    """Accepted corrections as a source like any other."""

    attribution = ATTRIBUTION

    def __init__(self, corrections: Sequence[Correction]) -> None:
        self._corrections = corrections

    def fingerprint(self, log: Log = silent) -> str:
        """Digest of which pictures are called what."""
        said = [[one.sha256, one.row.feedback_id] for one in self._corrections]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def total(self, log: Log = silent) -> int:
        """Number of corrections."""
        return len(self._corrections)

    def __iter__(self) -> Iterator[SourceRow]:
        """One row per correction, in order of arrival."""
        for one in self._corrections:
            yield SourceRow(f"feedback {one.row.feedback_id}", one.picture, captions=(one.row.caption,))


def _word_pattern(words: Sequence[str]) -> "re.Pattern[str] | None":
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\w*", re.I) if words else None


def _shown(row: FeedbackRow) -> str:
    return repr(row.key_name) if row.key_name else "(none)"
