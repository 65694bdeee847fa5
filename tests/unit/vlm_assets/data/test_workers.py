import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_assets.data.workers import AHEAD, in_order


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 4))
def test_results_come_in_the_order_of_the_items(items: list[int], workers: int):
    def work(item: int) -> int:
        time.sleep(0.0003 * (5 - item))
        return item * item

    assert list(in_order(work, items, workers)) == [item * item for item in items]


def test_only_a_few_items_are_in_memory():
    taken = 0

    def items():
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    for done, _ in enumerate(in_order(lambda item: item, items(), workers=2), start=1):
        assert taken - done <= 2 * AHEAD


def test_what_the_work_raises_comes_out_and_the_rest_is_left_undone():
    started: list[int] = []
    before = threading.active_count()

    def work(item: int) -> int:
        started.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(in_order(work, range(1000), workers=2))
    assert len(started) < 30
    assert threading.active_count() == before
