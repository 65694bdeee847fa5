"""A caption's words and how sure the model was of each: word pieces put together again."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CONTINUED = "##"  # begins a piece that goes on with the word before it
SPLIT_WORDS = re.compile(r"(?<=\w) (-) (?=\w)|(?<=\w) (') (?=s\b)")


@dataclass(frozen=True)
class Word:
    """A word as it stands in the caption. `probability`, 0..1: of all its pieces, given the picture and what precedes.

    The product over its pieces, so a long word is not surer than its least sure piece.
    """

    text: str
    probability: float


def tidy(text: str) -> str:
    """A decoded caption as a person would write it: BERT's tokenizer takes "t-shirt" and "man's" apart."""
    return SPLIT_WORDS.sub(lambda match: match[1] or match[2], text.strip())


def caption_words(text: str, pieces: Sequence[str], logprobs: Sequence[float]) -> tuple[Word, ...]:
    """The words of a tidy caption, joined by spaces the caption itself. `logprobs`: natural, one per piece."""
    words = text.split()
    sums = [0.0] * len(words)
    for number, logprob in zip(word_numbers(text, pieces), logprobs, strict=True):
        if number is not None:
            sums[number] += logprob
    return tuple(Word(word, math.exp(total)) for word, total in zip(words, sums, strict=True))


def visible_pieces(tokenizer: Any, token_ids: Sequence[int]) -> list[str]:
    """What each token puts into the caption's text, without spaces; "" for special tokens, which put in nothing."""
    special = set(tokenizer.all_special_ids)
    names: list[str | None] = tokenizer.convert_ids_to_tokens(list(token_ids))
    pieces: list[str] = []
    begun = False
    for token, name in zip(token_ids, names, strict=True):
        if name is None or token in special:  # None: a start token that the tokenizer does not know
            pieces.append("")
            continue
        pieces.append(name.removeprefix(CONTINUED) if begun else name)
        begun = True
    return pieces


def word_numbers(text: str, pieces: Sequence[str]) -> list[int | None]:
    """For each piece the word of `text.split()` that it is part of; None for a piece without letters.

    Decoding and tidying move only spaces, so the other characters count out which piece belongs where.
    """
    owners = [number for number, word in enumerate(text.split()) for _ in word]
    place = 0
    numbers: list[int | None] = []
    for piece in pieces:
        letters = len("".join(piece.split()))
        numbers.append(owners[place] if letters else None)
        place += letters
    return numbers
