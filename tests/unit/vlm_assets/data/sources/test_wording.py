"""Captions from values: the first template that fits, with articles as English has them."""

import pytest

from vlm_assets.data.sources.wording import TemplateConfig, Wording, first_fitting, is_plural, with_article


def wordings(*templates: tuple[dict, str]) -> list[Wording]:
    return [TemplateConfig(when=when, text=text).wording() for when, text in templates]


@pytest.mark.parametrize(
    ("noun", "said"),
    [
        ("dress", "a dress"),
        ("outfit", "an outfit"),
        ("hour glass", "an hour glass"),
        ("uniform", "a uniform"),
        ("t-shirt", "a t-shirt"),
        ("x-ray", "an x-ray"),
        ("undershirt", "an undershirt"),
        ("shoes", "shoes"),
        ("pants", "pants"),
        ("children", "children"),
        ("dress shoes", "dress shoes"),
        ("pants suit", "a pants suit"),
        ("pair of shoes", "a pair of shoes"),
        ("bus", "a bus"),
        ("canvas", "a canvas"),
        ("iris", "an iris"),
        ("boss", "a boss"),
        ("series", "a series"),
    ],
)
def test_articles(noun: str, said: str):
    assert with_article(noun) == said
    assert is_plural(noun) == (noun == said)


def test_the_first_template_that_fits_is_used():
    found = wordings(({"kids": "True", "label": ["hat", "cap"]}, "a small {label}"), ({"kids": True}, "a"), ({}, "b"))
    assert first_fitting(found, {"kids": "True", "label": "cap"}) == found[0]
    assert first_fitting(found, {"kids": "True", "label": "coat"}) == found[1]
    assert first_fitting(found, {"kids": "False", "label": "cap"}) == found[2]
    assert first_fitting(found[:2], {"kids": "False", "label": "cap"}) is None


def test_values_are_said_once_and_blanks_once():
    (wording,) = wordings(({}, "{label:a} in  {colour}, {{sic}}"))
    assert wording.columns == {"label", "colour"}
    assert wording.write({"label": "outfit", "colour": "red"}) == "an outfit in red, {sic}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{label", "'{label': expected '}' before end of string"),
        ("a } b", "Single '}' encountered in format string"),
        ("a {}", "each pair of braces names a column, such as {label}"),
        ("{label:x}", "unknown 'x' after the colon; use {column} or {column:a}"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(text: str, fault: str):
    (wording,) = wordings(({}, text))
    (found,) = wording.faults()
    assert fault in found


def test_a_value_with_braces_is_not_a_template():
    (wording,) = wordings(({}, "a {label}"))
    assert wording.write({"label": "{kids} {0.__class__}"}) == "a {kids} {0.__class__}"
