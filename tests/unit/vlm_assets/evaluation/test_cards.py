"""What the gallery's cards carry: one scale per caption, words beside their maps, captions that are empty."""

import numpy as np

from tests.tiny import tiny_bundle
from tests.unit.vlm_assets.evaluation.shards import square
from tests.unit.vlm_assets.evaluation.test_report import PASSED, Page, card, scores
from vlm_assets.evaluation.cards import attention_grids
from vlm_assets.evaluation.config import EvalConfig
from vlm_assets.evaluation.gallery import Card, contact_sheet
from vlm_assets.evaluation.report import render_report


def test_grids_come_in_the_order_of_the_pictures_whatever_the_batches(tmp_path):
    bundle = tmp_path / "bundle"
    tiny_bundle(bundle)
    pictures = [square(colour)["image"]["bytes"] for colour in ("red", "blue", "white")]
    said = [[8, 9, 3], [3], [10, 3]]
    whole, parts = (
        attention_grids(tmp_path, pictures, said, EvalConfig(batch_size=size, threads=1)) for size in (3, 2)
    )
    for one, other, token_ids in zip(whole, parts, said, strict=True):
        assert one.shape[1:] == (2, 2)
        assert len(one) <= len(token_ids) - 1  # the end is no word
        assert np.abs(one.astype(int) - other).max(initial=0) <= 1


def test_an_empty_caption_says_so():
    silent = Card("x", card(1).picture, (), ("a red square",), 0.2, 0.0, False)
    assert silent.caption == ""
    page = Page(render_report(scores(), {"random": [silent], "worst": [], "best": []}, PASSED))
    assert "(nothing) a red square" in page.words
    assert contact_sheet([silent]).startswith(b"\x89PNG")
