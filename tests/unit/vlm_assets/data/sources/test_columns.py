"""What a cell means: captions in every form that tables give them."""

import pytest

from vlm_assets.data.sources.base import UnusableRowError
from vlm_assets.data.sources.columns import captions_of


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        (" a coat ", ("a coat",)),
        (["a coat", None, " ", float("nan"), "a hat"], ("a coat", "a hat")),
        (None, ()),
        (float("nan"), ()),
        ('["a coat", "a \\u00e9l\\u00e9gant hat"]', ("a coat", "a élégant hat")),
        ("['a coat', \"a man's hat\"]", ("a coat", "a man's hat")),
        ("['a coat', 'a hat']", ("a coat", "a hat")),
        ("['a coat', 'a hat' and more']", ("['a coat', 'a hat' and more']",)),
        ("[1] a coat", ("[1] a coat",)),
        ("[a coat]", ("[a coat]",)),
    ],
)
def test_captions_of_a_cell(cell: object, captions: tuple[str, ...]):
    assert captions_of(cell, "text") == captions


@pytest.mark.parametrize("cell", [7, 7.5, True, {"a": 1}, ["a", 7]])
def test_anything_else_is_no_caption(cell: object):
    with pytest.raises(UnusableRowError, match=r"'text' holds .*; expected a string or a list of strings"):
        captions_of(cell, "text")
