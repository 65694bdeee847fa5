from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.vlm_assets.data.pictures import encoded, picture
from vlm_assets.data.dedup import Links, Thresholds
from vlm_assets.data.near_duplicate_gallery import closest_to_limits, write_near_duplicates
from vlm_assets.data.previews import MAX_PICTURE_BYTES
from vlm_assets.data.split import Holdout, SplitPlan
from vlm_assets.data.split_balance import contents, wanted_shares, write_split_balance
from vlm_assets.data.tables import PICTURES, PackWriter

LIMITS = Thresholds(4.0, 20.0)


def links(pairs: list[tuple[int, int, float, float]], count: int = 40) -> Links:
    first, second, mean, cell = (np.array([pair[column] for pair in pairs]) for column in range(4))
    return Links(np.arange(count), first.astype(int), second.astype(int), mean, cell)


def test_pairs_nearest_to_either_limit_come_first():
    found = closest_to_limits(links([(0, 1, 1.0, 5.0), (2, 3, 3.8, 1.0), (4, 5, 0.5, 20.0)]), LIMITS, 2)
    assert [(pair.first, pair.second, pair.nearness) for pair in found] == [(4, 5, 1.0), (2, 3, 0.95)]


def test_equal_thumbnails_are_shown_where_there_is_room():
    equal = Links(np.array([0, 1, 0, 3, 1]), np.array([1]), np.array([3]), np.array([2.0]), np.array([1.0]))
    found = closest_to_limits(equal, LIMITS, 2)
    assert [(pair.first, pair.second, pair.nearness) for pair in found] == [(1, 3, 0.5), (0, 2, 0.0)]
    assert [pair[:2] for pair in closest_to_limits(equal, LIMITS)] == [(1, 3), (0, 2), (1, 4)]


def test_the_gallery_shows_both_pictures_and_is_small(tmp_path: Path):
    rows = [{"sha256": f"{number}"} for number in range(40)]
    with PackWriter(tmp_path, "pictures", PICTURES) as packs:
        for number in range(40):
            image = Image.new("RGB", (200, 200), "red" if number % 2 else "blue") if number < 2 else picture(number)
            packs.add({"sha256": f"{number}", "image": {"bytes": encoded(image), "path": f"{number}.png"}})
    pairs = [(number, number + 1, 4.0 - number / 100, 20.0) for number in range(0, 40, 2)]
    write_near_duplicates(tmp_path / "n.webp", rows, tmp_path, links(pairs), LIMITS)
    assert (tmp_path / "n.webp").stat().st_size <= MAX_PICTURE_BYTES
    with Image.open(tmp_path / "n.webp") as sheet:
        colours = np.asarray(sheet.convert("RGB"))[20:80]
    left, right = colours[:, 40], colours[:, 140]
    assert left[:, 2].mean() > 200 > 60 > left[:, 0].mean(), "the first is blue"
    assert right[:, 0].mean() > 200 > 60 > right[:, 2].mean(), "the second is red"


def test_without_pairs_there_is_no_gallery(tmp_path: Path):
    write_near_duplicates(tmp_path / "n.webp", [], tmp_path, links([]), LIMITS)
    assert not (tmp_path / "n.webp").exists()


def test_contents_count_pictures_captions_and_clusters():
    rows = [
        {"split": "train", "cluster": "a", "captions": ["x", "y"]},
        {"split": "train", "cluster": "a", "captions": ["x"]},
        {"split": "test", "cluster": "b", "captions": ["x"]},
    ]
    assert contents(rows, ["train", "val", "test"]) == {
        "pictures": [2, 0, 1],
        "captions": [3, 0, 1],
        "clusters": [1, 0, 1],
    }


def test_the_wanted_shares_are_of_what_holdouts_leave():
    shares = wanted_shares(["train", "val", "test", "test_unseen"], SplitPlan(0.5, 0.25, 0.25), 0.2)
    assert shares == pytest.approx({"train": 0.4, "val": 0.2, "test": 0.2})


@pytest.mark.parametrize("count", [0, 1, 60])
def test_the_balance_draws(tmp_path: Path, count: int):
    plan = SplitPlan(holdouts=(Holdout("unseen", ("role",), 0.1),))
    names = plan.split_names()
    rows = [{"split": names[n % 4], "cluster": f"{n}", "captions": ["x"]} for n in range(count)]
    write_split_balance(tmp_path / "b.png", rows, dict.fromkeys(names, count // 4), plan)
    assert 1000 < (tmp_path / "b.png").stat().st_size <= MAX_PICTURE_BYTES
