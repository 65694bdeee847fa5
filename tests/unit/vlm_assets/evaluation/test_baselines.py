"""The two captioners without a model."""

import numpy as np
import pytest

from tests.unit.vlm_assets.evaluation.shards import ColourCaptioner, square, write_split
from vlm_assets.evaluation.baselines import (
    most_frequent_caption,
    nearest,
    nearest_training_pictures,
    thumbnails,
    with_captions,
)
from vlm_assets.evaluation.pictures import read_texts
from vlm_assets.evaluation.predict import CAPTION_SCHEMA, caption_split


@pytest.mark.parametrize(
    ("captions", "expected"),
    [
        (["a", "b", "b"], "b"),
        (["b", "a"], "a"),  # a tie: alphabetical, so that the order of the shards does not matter
        (["only"], "only"),
    ],
)
def test_most_frequent_caption(captions, expected):
    assert most_frequent_caption(captions) == expected


def test_nearest_equals_brute_force_whatever_the_blocks():
    generator = np.random.default_rng(0)
    queries = generator.random((7, 12), dtype=np.float32)
    candidates = generator.random((50, 12), dtype=np.float32)
    distances = np.linalg.norm(queries[:, None] - candidates[None], axis=2)  # (7, 50)
    for size in (1, 7, 50, 64):
        found = nearest(queries, (candidates[start : start + size] for start in range(0, 50, size)))
        np.testing.assert_array_equal(found.rows, distances.argmin(axis=1))
        np.testing.assert_allclose(found.distances, distances.min(axis=1) / np.sqrt(12), atol=1e-5)


def test_the_first_of_equally_near_pictures_wins():
    candidates = np.ones((4, 3), dtype=np.float32)
    assert nearest(np.ones((1, 3), dtype=np.float32), [candidates[:2], candidates[2:]]).rows.tolist() == [0]


def test_thumbnails_average_areas():
    pixels = np.zeros((1, 3, 64, 64), dtype=np.uint8)
    pixels[:, :, ::2] = 255  # every second line white: grey on average
    small = thumbnails(pixels)
    assert small.shape == (1, 3072)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, 0.5, atol=0.01)


def test_every_split_is_matched_against_all_training_files(tmp_path):
    training = [square("black"), square("red"), square("blue"), square("white")]
    train = write_split(tmp_path, "train", training, rows_per_file=3)
    splits = {
        "test": write_split(tmp_path, "test", [square("red", 20), square("white", -20)], rows_per_file=1),
        "test_dark": write_split(tmp_path, "test_dark", [square("black", 15)]),
    }
    lines = []
    found = nearest_training_pictures(splits, train, lines.append)
    captions = read_texts(train).captions
    assert {name: [captions[row][0] for row in near.rows] for name, near in found.items()} == {
        "test": ["a red square", "a white square"],
        "test_dark": ["a black square"],
    }
    assert found["test_dark"].distances[0] == pytest.approx(15 / 255, abs=1e-4)
    assert "100% 4/4" in lines[-1]
    assert len(nearest_training_pictures(splits, train, lines.append, limit=1)["test"].rows) == 1


def test_other_captions_leave_no_confidence_behind(tmp_path):
    table = caption_split(ColourCaptioner(), write_split(tmp_path, "test", [square("red")]), 1, lambda _: None)
    other = with_captions(table, ["a thing"])
    assert other.schema == CAPTION_SCHEMA
    assert other["caption"].to_pylist() == ["a thing"]
    assert other["confidence"].to_pylist() == other["token_count"].to_pylist() == [None]
    assert other["references"] == table["references"]
    assert table["caption"].to_pylist() == ["a red square"]
