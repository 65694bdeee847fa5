"""The drift report of one window: the verdict, the numbers behind it, a plot and Evidently's page."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from vlm_assets.monitoring.compaction import ROWS
from vlm_assets.monitoring.config import DriftConfig
from vlm_assets.monitoring.drift import DRIFTED, DriftTest, decide, embedding_test, feature_tests, shortage
from vlm_assets.monitoring.features import (
    Sample,
    answered_ids,
    both_measured,
    bundle_version,
    read_reference,
    read_traffic,
)
from vlm_assets.monitoring.history import FIRST, REPORT, History, write_judged
from vlm_assets.monitoring.plots import embedding_plot

PLOT = "embeddings.png"
PAGE = "evidently.html"
WINDOW_HEX_DIGITS = 16

Report = dict[str, Any]
Detector = Callable[[Sample, Sample, DriftConfig], DriftTest]


def permutation_detector(reference: Sample, traffic: Sample, config: DriftConfig) -> DriftTest:
    """The detector of this package."""
    return embedding_test(
        reference.embeddings,
        traffic.embeddings,
        permutations=config.permutations,
        max_rows=config.max_rows,
        seed=config.seed,
    )


def write_report(
    log: Path,
    released: Path,
    path: Path,
    config: DriftConfig,
    history: History = FIRST,
    detector: Detector = permutation_detector,
) -> dict[str, int]:
    """Compare what a compacted log has that was not judged before with the reference of a released model; write `path`;
    return the counts.
    """
    bundle = released / "bundle"
    version = bundle_version(bundle)
    reference, traffic = read_reference(bundle), read_traffic(log / ROWS, bundle, history.judged)
    found = compare(reference, traffic, config, history, detector)
    report = {"reference_version": version, "window_id": window_id(traffic), **found}
    (path / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    judged = report["p_value"] is not None
    write_judged(answered_ids(log / ROWS, version, judged, history.judged), path)
    if judged:
        (path / PLOT).write_bytes(embedding_plot(reference.embeddings, traffic.embeddings, headline(report)))
        write_evidently_page(reference, traffic, path / PAGE)
    return {"reference": len(reference), "traffic": len(traffic)}


def read_report(path: Path) -> Report:
    """What `write_report` found."""
    return json.loads((path / REPORT).read_text())


def compare(
    reference: Sample,
    traffic: Sample,
    config: DriftConfig,
    history: History = FIRST,
    detector: Detector = permutation_detector,
) -> Report:
    """The verdict and its numbers; with too few pictures a verdict that says so, no numbers, and what was before."""
    look = history.looks + 1
    threshold = config.threshold(look)
    counts = {"n_reference": len(reference), "n_traffic": len(traffic), "detector": config.detector}
    settings = {"alpha": threshold.alpha, "minimum_effect": config.minimum_effect, "min_rows": config.min_rows}
    short = shortage(len(reference), len(traffic), threshold)
    if short:
        nothing: Report = {"p_value": None, "effect_size": None, "squared_mmd": None, "features": [], "untested": []}
        return {"verdict": short, **nothing, **counts, **settings, **_row(history.looks, history.drifted, config)}
    test = detector(reference, traffic, config)
    verdict = decide(test, threshold)
    measured = both_measured(reference, traffic, config.min_rows)
    tests = feature_tests(*measured, max_rows=config.max_rows, seed=config.seed)
    return {
        "verdict": verdict,
        "p_value": test.p_value,
        "effect_size": test.effect_size,
        "squared_mmd": test.statistic,
        "p_mmd": test.p_mmd,
        "p_classifier": test.p_classifier,
        "classifier_auc": test.classifier_auc,
        "features": [{**asdict(item), "drifted": item.q_value <= config.false_discovery_rate} for item in tests],
        "untested": sorted(set(reference.features) - set(measured[0])),
        **counts,
        **settings,
        **_row(look, history.drifted + 1 if verdict == DRIFTED else 0, config),
    }


def _row(look: int, drifted: int, config: DriftConfig) -> Report:
    """Where a window stands in the row of windows."""
    return {"look": look, "windows_in_a_row": drifted, "confirmed": drifted >= config.confirm_windows}


def window_id(traffic: Sample) -> str:
    """Names a window by the requests in it: the same requests are the same window, whenever they are looked at."""
    return hashlib.sha256("\n".join(sorted(traffic.ids)).encode()).hexdigest()[:WINDOW_HEX_DIGITS]


def headline(report: Mapping[str, Any]) -> str:
    """The verdict in one line."""
    if report["p_value"] is None:
        return str(report["verdict"])
    return (
        f"{report['verdict']}: p = {report['p_value']:.2g} (alpha {report['alpha']:.2g}), "
        f"effect {report['effect_size']:.2f} (limit {report['minimum_effect']:g}), n = {report['n_traffic']}, "
        f"{report['windows_in_a_row']} drifted in a row"
    )


def write_evidently_page(reference: Sample, traffic: Sample, page: Path) -> None:
    """Evidently's report on the scalar features, one self-contained HTML file.

    Never on the embeddings: its metric for them runs t-SNE each time, half a minute for 400 pictures, and its detectors
    at their defaults call equal data drifted, or nothing (docs/drift.md). The verdict is ours alone.
    """
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = [name for name in reference.features if _known(reference, name) and _known(traffic, name)]

    def dataset(sample: Sample) -> Dataset:
        return Dataset.from_pandas(
            pd.DataFrame(sample.features), data_definition=DataDefinition(numerical_columns=columns)
        )

    snapshot = Report([DataDriftPreset(columns=columns, num_method="ks")]).run(dataset(traffic), dataset(reference))
    snapshot.save_html(str(page))


def _known(sample: Sample, feature: str) -> bool:
    return bool(np.isfinite(sample.features[feature]).any())
