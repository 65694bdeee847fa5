"""The benchmark of the data stage runs, and its table says what its figures say."""

import json
from pathlib import Path

import pytest

from tests.benchmarks.bench_data import FLAT, main
from tests.benchmarks.figures import Figure, Report


@pytest.mark.integration
def test_a_part_prints_its_table_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    figures = main(["--quick", "--only", "decode", "--json", str(tmp_path / "d.json")])
    table = capsys.readouterr().out
    written = json.loads((tmp_path / "d.json").read_text())
    assert [one["name"] for one in written["figures"]] == [figure.name for figure in figures] and len(figures) == 12
    assert all(figure.name in table for figure in figures)
    off = {figure.name: figure.value for figure in figures if "worst off BlipProcessor" in figure.name}
    assert len(off) == 6 and all(0 <= levels < 10 for levels in off.values())


@pytest.mark.parametrize(("value", "reached"), [(0.8, "NO"), (0.95, "yes"), (1.05, "yes"), (1.2, "NO")])
def test_memory_is_flat_on_both_sides(value: float, reached: str):
    figure = Figure("memory", (value,), "x", **FLAT)
    assert (figure.goal, figure.reached) == (">= 0.9 and <= 1.1", reached)


def test_the_median_counts_and_the_spread_is_shown():
    figure = Figure("speed", (3.5, 2.0, 3.1), "x", 3.0, detail="details")
    assert (figure.value, figure.reached) == (3.1, "yes")
    assert "3.10     2.00-3.50 x" in str(figure) and str(figure).endswith("yes  details")
    assert Figure("size", (1.0,), "kB").reached == ""


def test_what_was_measured_before_a_failure_is_in_the_file(tmp_path: Path):
    report = Report(tmp_path / "d.json", {"quick": True})
    report.part([Figure("speed", (1.0, 2.0), "x")])
    with pytest.raises(ZeroDivisionError):
        report.part(Figure("worse", (1 / number,), "x") for number in (1, 0))
    written = json.loads((tmp_path / "d.json").read_text())
    assert (written["quick"], written["figures"][0]["median"], len(written["figures"])) == (True, 1.5, 1)
