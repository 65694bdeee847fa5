"""Memory that was freed goes back to the system."""

import psutil

from vlm_serving.heap import HeapTrimmer


def test_freed_blocks_between_living_ones_are_given_back() -> None:
    trimmer, process = HeapTrimmer(period_s=0), psutil.Process()
    blocks = [bytearray(60_000) for _ in range(2000)]
    kept = blocks[::2]
    blocks.clear()
    before = process.memory_info().rss
    assert trimmer.trim_if_due()
    assert process.memory_info().rss < before - 30 * 2**20
    assert len(kept) == 1000


def test_it_waits_its_time() -> None:
    assert not HeapTrimmer(period_s=60).trim_if_due()
