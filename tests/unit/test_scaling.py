"""docs/scaling.md says what its script computes from the measured figures."""

import json
from dataclasses import replace

import pytest

from tests.benchmarks.bench_scaling import BENCHMARKS, FIGURES, PAGE, Assumptions, from_benchmarks, needs, written

COST = {
    "import_cpu_s": 0.0036, "splits_cpu_s": 0.0072, "shards_jpeg_cpu_s": 0.0036, "import_bytes": 50_000.0,
    "splits_bytes": 10_000.0, "shards_jpeg_bytes": 40_000.0, "train_h100_per_s": 1000.0, "caption_h100_ms": 3.6,
    "splits_memory_kb": 10.0,
}  # fmt: skip


def test_the_tables_of_the_page_are_the_computed_ones():
    page = PAGE.read_text()
    assert written(page, json.loads(FIGURES.read_text()), BENCHMARKS.read_text()) == page


def test_a_million_pictures_by_hand():
    found = needs(1_000_000, COST, Assumptions(core_hour_usd=0.1, h100_hour_usd=3, epochs=3.6, tb_month_usd=20))
    assert (found["import_core_hours"], found["splits_core_hours"]) == pytest.approx((1, 2))
    assert (found["train_gpu_hours"], found["caption_gpu_hours"]) == pytest.approx((1, 1))
    assert found["splits_memory_gb"] == pytest.approx(10)
    assert (found["stored_tb"], found["storage_usd_month"]) == pytest.approx((0.1, 2))
    assert found["compute_usd"] == pytest.approx(4 * 0.1 + 2 * 3)


def test_twice_the_pictures_need_twice_of_everything_and_prices_change_money_only():
    one, two = (needs(size, COST, Assumptions()) for size in (1000, 2000))
    assert two == pytest.approx({name: 2 * value for name, value in one.items()})
    dear = needs(1000, COST, replace(Assumptions(), core_hour_usd=1, h100_hour_usd=9, tb_month_usd=99))
    assert {name for name in one if dear[name] != one[name]} == {"compute_usd", "storage_usd_month"}


def test_a_row_of_the_benchmarks_that_is_gone_is_told():
    with pytest.raises(ValueError, match="has no row for train_h100_per_s, caption_h100_ms"):
        from_benchmarks("compare all thumbnails with each other, 9 kB")
