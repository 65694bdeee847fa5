import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlm_assets.data.clusters import Clusters, Sets


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=30))
def test_joined_items_agree_and_are_named_by_the_oldest(joins: list[tuple[int, int]]):
    clusters: Clusters[int] = Clusters()
    sets = [{item} for item in range(16)]
    for item in range(16):
        clusters.find(item)  # ages in order
    for one, other in joins:
        clusters.join(one, other)
        merged = sets[one] | sets[other]
        for item in merged:
            sets[item] = merged
    assert [clusters.find(item) for item in range(16)] == [min(sets[item]) for item in range(16)]


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=30))
def test_sets_agree_with_clusters(joins: list[tuple[int, int]]):
    clusters: Clusters[int] = Clusters()
    sets = Sets(16)
    for one, other in joins:
        assert sets.join(one, other) == (clusters.find(one) != clusters.find(other))
        clusters.join(one, other)
    ones, others = np.divmod(np.arange(256), 16)
    expected = [clusters.find(one) == clusters.find(other) for one, other in zip(ones, others, strict=True)]
    assert sets.together(ones, others).tolist() == expected
