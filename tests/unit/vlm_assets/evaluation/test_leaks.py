"""What leaks are worth: rows are dealt as a naive split would, and only what twins add is counted."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_assets.evaluation.baselines import Nearest
from vlm_assets.evaluation.leaks import SourceRow, leak_facts, measure_leaks, nearest_twins, source_rows

SETTINGS = {"resamples": 200, "seed": 0}


def picture(name, captions, row_captions, cluster=None, split="test"):
    return {
        "image_id": name, "captions": captions, "row_captions": row_captions,
        "cluster": cluster or name, "split": split,
    }  # fmt: skip


def looks(*greys):
    return np.array([[grey] * 12 for grey in greys], dtype=np.float32)


def far(count):
    """The nearest training picture is far away."""
    return Nearest(np.zeros(count, dtype=np.int64), np.full(count, 0.9, dtype=np.float32))


def test_rows_of_the_source_say_what_they_brought():
    pictures = {
        "p": picture("p", ["a cook", "a chef", "a man"], [[0, 1], [1], [2, 0]]),
        "q": picture("q", ["a dog"], [[0]], cluster="c"),
    }
    rows = list(source_rows(pictures, ["q", "p"]))
    assert [(row.picture, row.cluster, row.captions) for row in rows] == [
        (0, "c", ("a dog",)),
        (1, "p", ("a cook", "a chef")),
        (1, "p", ("a chef",)),
        (1, "p", ("a man", "a cook")),
    ]


def test_the_nearest_twin_trains_is_another_row_and_of_the_same_cluster():
    rows = [SourceRow(place, cluster, ("a",)) for place, cluster in ((0, "c"), (0, "c"), (1, "c"), (2, "d"), (3, "c"))]
    trains = np.array([[True, False, True, True, True], [True, False, False, True, False]])
    twins, distances = nearest_twins(rows, trains, looks(0.0, 0.2, 0.0, 0.3))
    assert twins.tolist() == [[2, 0, 4, -1, 2], [-1, 0, 0, -1, 0]]
    np.testing.assert_allclose(distances, [[0.2, 0, 0.1, np.inf, 0.1], [np.inf, 0, 0.2, np.inf, 0.3]], atol=1e-3)


def test_only_rows_with_a_twin_in_training_gain():
    rows = [
        SourceRow(0, "c", ("a green bird on a branch",)),
        SourceRow(0, "c", ("a green bird on a branch",)),
        SourceRow(1, "d", ("two men at a small table",)),
        SourceRow(2, "e", ("the old red house by the sea",)),
    ]
    trains = np.array([[True, False, True, True]])
    copied = ["a man with a hat", "two men", "the sea"]
    found = measure_leaks(rows, trains, looks(0.1, 0.5, 0.9), far(3), copied, **SETTINGS)
    assert (found.rows, found.leaked_rows) == (4, 1)  # row 1 has row 0 in training; row 0 is no twin of itself
    assert found.clean_on_leaked < 1 < found.leaky_on_leaked
    assert found.leaky - found.clean == pytest.approx((found.leaky_on_leaked - found.clean_on_leaked) / 4)
    assert found.inflation.value == pytest.approx(found.leaky - found.clean)
    assert (found.inflation.n, found.inflation.low) == (4, 0)  # one cluster of three: many draws are without it


def test_a_training_picture_that_is_nearer_than_the_twin_is_copied_all_the_same():
    rows = [SourceRow(0, "c", ("a cook with a pan",)), SourceRow(1, "c", ("a cook with a pan",))]
    near = Nearest(np.zeros(2, dtype=np.int64), np.full(2, 0.05, dtype=np.float32))
    found = measure_leaks(rows, np.ones((3, 2), dtype=bool), looks(0.0, 0.5), near, ["a dog", "a dog"], **SETTINGS)
    assert found.leaked_rows == 2
    assert found.leaky == found.clean


def test_without_twins_there_is_nothing_to_gain():
    rows = [SourceRow(place, f"c{place}", ("a cook with a pan",)) for place in range(3)]
    found = measure_leaks(rows, np.ones((2, 3), dtype=bool), looks(0, 0, 0), far(3), ["a dog"] * 3, **SETTINGS)
    assert (found.leaked_rows, found.inflation, found.leaky) == (0, None, found.clean)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=12), st.integers(0, 99))
def test_twins_are_those_that_a_search_through_all_pairs_finds(places, seed):
    generator = np.random.default_rng(seed)
    rows = [SourceRow(place, f"{cluster}", ("a",)) for place, cluster in places]
    seen = generator.random((4, 12)).astype(np.float32)
    trains = generator.random((3, len(rows))) < 0.5
    twins, distances = nearest_twins(rows, trains, seen)
    for draw in range(3):
        for number, row in enumerate(rows):
            apart = [
                float(np.sqrt(((seen[row.picture] - seen[other.picture]) ** 2).mean()))
                for place, other in enumerate(rows)
                if place != number and other.cluster == row.cluster and trains[draw, place]
            ]
            assert (twins[draw, number] >= 0) == bool(apart)
            assert distances[draw, number] == pytest.approx(min(apart, default=np.inf), abs=1e-3)


def test_facts_come_from_the_splits_behind_the_shards(tmp_path):
    rows = [
        picture("t1", ["a small cook with a pan", "one cook at the stove"], [[0], [1]]),
        picture("t2", ["a very tall judge in a hall"], [[0]]),
        *(picture(f"x{number}", ["a"], [[0]], split="train") for number in range(6)),
        picture("held", ["a"], [[0]], split="test_unseen_role"),
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    naive = {"leaked_test_rows": 1.5, "test_rows": 4.0}
    (tmp_path / "summary.json").write_text(json.dumps({"naive_split": naive}))
    copied = pa.table({"image_id": ["t2", "t1"], "caption": ["a judge", "a judge"]})
    found = leak_facts(tmp_path, copied, looks(0.5, 0.1), far(2), SimpleNamespace(**SETTINGS))
    assert (found["naive_split"], found["train_share"], found["rows"]) == (naive, 6 / 8, 3)
    assert 0 < found["leaked_rows"] <= 2
    assert json.loads(json.dumps(found)) == found
