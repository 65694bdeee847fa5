"""Captions made of a row's values: templates such as "{label:a} for kids", of which the first that fits is used."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import dagster as dg
from pydantic import Field

from vlm_assets.data.sources.columns import text_of

ARTICLE = "a"  # {label:a} is "a dress", "an outfit", "shoes"
# singular nouns that look like plurals; nouns on -us and -is are told by their ending
SINGULAR = frozenset({"atlas", "bias", "canvas", "gas", "lens"})


class TemplateConfig(dg.Config):
    """One wording, and for which rows."""

    when: dict[str, Any] = Field(
        default={}, description='column: value or list of values, as the table has them: {kids: "True"}; empty = always'
    )
    text: str = Field(
        min_length=1, description='"{label} for kids"; {label:a} puts "a" or "an" before it unless it is a plural'
    )

    def wording(self) -> "Wording":
        """The same, ready to use."""
        return Wording(self.text, {column: _texts(values) for column, values in self.when.items()})


@dataclass(frozen=True)
class Wording:
    """A template with its condition."""

    text: str
    when: Mapping[str, frozenset[str]]

    @cached_property
    def parts(self) -> list[tuple[str, str, str]]:
        """Literal text, the column that follows it ("" at the end), and how to write the column's value."""
        return [(text, column or "", how or "") for text, column, how, _ in string.Formatter().parse(self.text)]

    @property
    def columns(self) -> set[str]:
        """The columns whose values it says."""
        return {column for _, column, _ in self.parts if column}

    def faults(self) -> list[str]:
        """What is wrong with the template; empty if nothing is."""
        try:
            parts = self.parts
        except ValueError as error:
            return [f"{self.text!r}: {error}"]
        if any(column == "" and how is not None for _, column, how, _ in string.Formatter().parse(self.text)):
            return [f"{self.text!r}: each pair of braces names a column, such as {{label}}"]
        unknown = sorted({how for _, _, how in parts} - {"", ARTICLE})
        return [f"{self.text!r}: unknown {how!r} after the colon; use {{column}} or {{column:a}}" for how in unknown]

    def fits(self, values: Mapping[str, str]) -> bool:
        """Whether a row, as the table has it, is one of those meant."""
        return all(values.get(column, "") in wanted for column, wanted in self.when.items())

    def write(self, values: Mapping[str, str]) -> str:
        """The caption of a row; each value must be there and not be empty."""
        written = (text + (_say(values[column], how) if column else "") for text, column, how in self.parts)
        return " ".join("".join(written).split())


def first_fitting(wordings: Sequence[Wording], values: Mapping[str, str]) -> Wording | None:
    """The first wording that is meant for the row, or None."""
    return next((wording for wording in wordings if wording.fits(values)), None)


@cache
def with_article(noun: str) -> str:
    """ "a dress", "an hour", "an outfit"; plurals as they are: "shoes"."""
    return noun if is_plural(noun) else _inflect().a(noun)


def is_plural(noun: str) -> bool:
    """Whether an English noun, or the head of "a pair of shoes", is a plural: pants, dress shoes, children."""
    head = noun.split(" of ")[0].split(" with ")[0].split()[-1].lower()
    if head in SINGULAR or head.endswith(("ss", "us", "is")):
        return False
    singular = _inflect().singular_noun(head)  # False if it is singular already; the word itself if it is both: series
    return bool(singular) and singular != head


def _say(value: str, how: str) -> str:
    return with_article(value) if how == ARTICLE else value


def _texts(values: Any) -> frozenset[str]:
    return frozenset(map(text_of, values if isinstance(values, list) else [values]))  # pyright: ignore


@cache
def _inflect() -> Any:
    import inflect

    return inflect.engine()
