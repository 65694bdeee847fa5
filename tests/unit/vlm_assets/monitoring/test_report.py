"""The verdict of a window and the files that show it."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from vlm_assets.monitoring.compaction import select_window, write_window
from vlm_assets.monitoring.config import DriftConfig
from vlm_assets.monitoring.features import read_reference
from vlm_assets.monitoring.history import History
from vlm_assets.monitoring.plots import embedding_plot, png_markdown, principal_plane
from vlm_assets.monitoring.report import compare, headline, read_report, window_id, write_report

ONE_LOOK = {"alpha": 0.01, "windows": 1, "permutations": 999}


@pytest.fixture
def report_on(requests, released, tmp_path):
    """Writes the report of `count` requests into a fresh directory; returns it with the directory."""

    def write(count, config=None, **options):
        log, path = tmp_path / "log", tmp_path / "report"
        log.mkdir(), path.mkdir()
        write_window(select_window(requests(count, **options), 10_000), log)
        assert write_report(log, released, path, config or DriftConfig(**ONE_LOOK))["traffic"] == count
        return read_report(path), path

    return write


def test_equal_traffic_has_not_drifted_and_every_file_is_written(report_on):
    report, path = report_on(120)
    assert report["verdict"] == "no drift"
    assert report["p_value"] > 0.01
    assert (report["n_reference"], report["n_traffic"]) == (200, 120)
    assert not any(item["drifted"] for item in report["features"])
    assert (path / "embeddings.png").read_bytes().startswith(b"\x89PNG")
    page = (path / "evidently.html").read_text()
    assert "brightness" in page and "embedding" not in page.lower().split("<script")[0]


def test_shifted_traffic_has_drifted(report_on):
    report, _ = report_on(120, shift=1.0)
    assert report["verdict"] == "drifted"
    assert report["p_value"] <= 0.01
    assert report["effect_size"] >= 1
    assert report["p_mmd"] == report["p_classifier"] == 1 / 1000
    assert report["classifier_auc"] > 0.9
    assert headline(report).startswith("drifted: p = 0.002 (alpha 0.01), effect ")
    assert headline(report).endswith("n = 120, 1 drifted in a row")


def test_a_significant_difference_that_is_too_small_is_no_drift(report_on):
    report, _ = report_on(120, shift=1.0, config=DriftConfig(minimum_effect=50, **ONE_LOOK))
    assert report["p_value"] <= 0.01
    assert report["verdict"] == "no drift"


def test_a_feature_that_moved_is_named(report_on):
    report, _ = report_on(100, brightness=[0.9] * 100)
    assert [item["feature"] for item in report["features"] if item["drifted"]] == ["brightness"]


def test_too_little_traffic_is_said_and_nothing_is_drawn(report_on):
    report, path = report_on(49)
    assert report["verdict"] == "not enough traffic (49 < 50)"
    assert report["p_value"] is None
    assert headline(report) == report["verdict"]
    assert sorted(file.name for file in path.iterdir()) == ["judged.parquet", "report.json"]


def test_a_look_among_many_has_its_share_of_alpha(requests, released, tmp_path):
    config = DriftConfig(alpha=0.05, windows=10, spending_power=2, permutations=9_999)
    sample = read_reference(released / "bundle")
    alphas = [compare(sample, sample, config, History(looks=look))["alpha"] for look in range(10)]
    assert sum(alphas) == pytest.approx(0.05)
    assert alphas[0] < alphas[9]


def test_drift_is_confirmed_by_windows_in_a_row(requests, released, tmp_path):
    config = DriftConfig(confirm_windows=3, **ONE_LOOK)
    reference = read_reference(released / "bundle")
    moved = replace(reference, embeddings=reference.embeddings + 1)

    def row(traffic, **before):
        report = compare(reference, traffic, config, History(**before))
        return report["windows_in_a_row"], report["confirmed"], report["look"]

    assert row(moved) == (1, False, 1)
    assert row(moved, looks=7, drifted=2) == (3, True, 8)
    assert row(reference, looks=7, drifted=2) == (0, False, 8)
    few = replace(reference, ids=reference.ids[:9], embeddings=reference.embeddings[:9])
    assert row(few, looks=7, drifted=3) == (3, True, 7)  # too few to judge: what was confirmed stays so


def test_a_feature_that_one_side_lacks_is_not_compared_and_said(report_on):
    report, path = report_on(100, sharpness=[None] * 60 + [500.0] * 40, entropy_bits=[None] * 100)
    assert report["untested"] == ["entropy_bits", "sharpness"]
    assert "entropy_bits" not in (path / "evidently.html").read_text()
    assert "sharpness" not in {item["feature"] for item in report["features"]}


def test_no_traffic_is_a_report_as_well(report_on):
    assert report_on(0)[0]["verdict"] == "not enough traffic (0 < 50)"


def test_too_small_a_reference_is_said(report_on, released):
    path = released / "bundle" / "reference.parquet"
    pq.write_table(pq.read_table(path).slice(0, 20), path)
    assert report_on(60)[0]["verdict"] == "not enough reference pictures (20 < 50)"


def test_a_window_is_named_by_its_requests(requests, released, tmp_path):
    from vlm_assets.monitoring.features import read_traffic

    ids = []
    for name, order in (("a", [0, 1, 2]), ("b", [2, 0, 1]), ("c", [0, 1])):
        pq.write_table(requests(3).take(order), tmp_path / name)
        ids.append(window_id(read_traffic(tmp_path / name, released / "bundle")))
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 16


def test_plane_keeps_the_direction_in_which_the_reference_varies():
    reference = [[-2.0, 0.0, 0.1], [2.0, 0.0, -0.1], [0.0, 0.5, 0.0], [0.0, -0.5, 0.0]]
    x, y = principal_plane(reference, [[4.0, 0.0, -0.2]])
    assert (x.shape, y.shape) == ((4, 2), (1, 2))
    assert abs(y[0, 0]) == pytest.approx(4.0, abs=0.02)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_plot_is_a_small_png(dimensions):
    png = embedding_plot([[float(row)] * dimensions for row in range(5)], [[1.0] * dimensions] * 3, "p = 0.5")
    assert png.startswith(b"\x89PNG") and len(png) < 60_000
    assert png_markdown(png, "drift").startswith("![drift](data:image/png;base64,iVBOR")
