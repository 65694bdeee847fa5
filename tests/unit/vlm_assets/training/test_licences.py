"""Whose work a model carries along, and the licence that model hubs are told."""

import pytest

from vlm_assets.training.licences import OTHER, attribution_of_model, credit, licence_tag

CARD = """---
license: bsd-3-clause
tags: [image-captioning]
---
# BLIP
"""
OURS = """---
license: cc-by-sa-4.0
---
# Captioner

## Data and licence

- pictures and captions: Shop · ours · CC0 1.0
- base model: OpenMoji 17 · All emojis designed by OpenMoji

## Use
"""


@pytest.mark.parametrize(
    ("licences", "tag"),
    [
        (["CC BY-SA 4.0"], "cc-by-sa-4.0"),
        (["CC0 1.0", "CC BY-SA 4.0"], "cc-by-sa-4.0"),  # CC0 asks for nothing
        (["CC0 1.0", "cc0-1.0"], "cc0-1.0"),
        (["CC BY-SA 4.0", "bsd-3-clause"], OTHER),  # two that ask for different things
        (["MIT License", "MIT"], "mit"),
        (["BSD 3-Clause"], "bsd-3-clause"),
        (["CC BY-SA 4.0", ""], OTHER),  # nobody knows
        (["annotations CC BY 4.0; pictures under the terms of Flickr"], OTHER),
        ([], OTHER),
    ],
)
def test_the_tag_is_the_one_licence_that_covers_it_all(licences: list[str], tag: str) -> None:
    assert licence_tag(licences) == tag


def test_a_credit_says_everything_once() -> None:
    said = {"title": "OpenMoji 17", "text": "Drawn by OpenMoji. License: CC BY-SA 4.0", "licence": "CC BY-SA 4.0"}
    assert credit(said) == "OpenMoji 17 · Drawn by OpenMoji. License: CC BY-SA 4.0"
    assert credit({**said, "text": "Drawn.", "url": "https://x"}) == "OpenMoji 17 · Drawn. · CC BY-SA 4.0 · https://x"
    assert credit({}) == ""


def test_a_pretrained_models_card_tells_its_licence_and_one_of_ours_its_pictures() -> None:
    theirs = attribution_of_model("BLIP", CARD, "https://hub/blip")
    assert (theirs.title, theirs.licence, theirs.url) == ("BLIP", "bsd-3-clause", "https://hub/blip")
    ours = attribution_of_model("shop", OURS, "")
    assert ours.licence == "cc-by-sa-4.0"
    assert "All emojis designed by OpenMoji" in ours.text and "Use" not in ours.text
    assert attribution_of_model("x", "no front matter", "").licence == "licence not said by its card"
