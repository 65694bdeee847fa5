"""The drift report of one window: the verdict, the numbers behind it, a plot and Evidently's page."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlm_assets.monitoring.compaction import ROWS
from vlm_assets.monitoring.config import DriftConfig
from vlm_assets.monitoring.drift import decide, feature_tests, mmd_permutation_test, shortage
from vlm_assets.monitoring.features import Sample, bundle_version, read_reference, read_traffic
from vlm_assets.monitoring.plots import embedding_plot

REPORT = "report.json"
PLOT = "embeddings.png"
PAGE = "evidently.html"
WINDOW_HEX_DIGITS = 16

Report = dict[str, Any]


def write_report(log: Path, released: Path, path: Path, config: DriftConfig) -> dict[str, int]:
    """Compare a compacted log with the reference of a released model; write `path`; return the counts."""
    bundle = released / "bundle"
    version = bundle_version(bundle)
    reference, traffic = read_reference(bundle), read_traffic(log / ROWS, version)
    report = {"reference_version": version, "window_id": window_id(traffic), **compare(reference, traffic, config)}
    (path / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    if report["p_value"] is not None:
        (path / PLOT).write_bytes(embedding_plot(reference.embeddings, traffic.embeddings, headline(report)))
        write_evidently_page(reference, traffic, path / PAGE)
    return {"reference": len(reference), "traffic": len(traffic)}


def read_report(path: Path) -> Report:
    """What `write_report` found."""
    return json.loads((path / REPORT).read_text())


def compare(reference: Sample, traffic: Sample, config: DriftConfig) -> Report:
    """The verdict and its numbers; with too few pictures a verdict that says so, and no numbers."""
    settings = {"alpha": config.alpha, "minimum_effect": config.minimum_effect, "min_rows": config.min_rows}
    counts = {"n_reference": len(reference), "n_traffic": len(traffic)}
    short = shortage(len(reference), len(traffic), config.threshold())
    if short:
        nothing = {"p_value": None, "effect_size": None, "squared_mmd": None, "features": []}
        return {"verdict": short, **nothing, **counts, **settings}
    bounds = {"max_rows": config.max_rows, "seed": config.seed}
    test = mmd_permutation_test(reference.embeddings, traffic.embeddings, permutations=config.permutations, **bounds)
    features = feature_tests(reference.features, traffic.features, **bounds)
    return {
        "verdict": decide(test, config.threshold()),
        "p_value": test.p_value,
        "effect_size": test.effect_size,
        "squared_mmd": test.statistic,
        "features": [{**asdict(item), "drifted": item.q_value <= config.false_discovery_rate} for item in features],
        **counts,
        **settings,
    }


def window_id(traffic: Sample) -> str:
    """Names a window by the requests in it: the same requests are the same window, whenever they are looked at."""
    return hashlib.sha256("\n".join(sorted(traffic.ids)).encode()).hexdigest()[:WINDOW_HEX_DIGITS]


def headline(report: Mapping[str, Any]) -> str:
    """The verdict in one line."""
    if report["p_value"] is None:
        return str(report["verdict"])
    return (
        f"{report['verdict']}: p = {report['p_value']:.4f} (alpha {report['alpha']:g}), "
        f"effect {report['effect_size']:.2f} (limit {report['minimum_effect']:g}), n = {report['n_traffic']}"
    )


def write_evidently_page(reference: Sample, traffic: Sample, page: Path) -> None:
    """Evidently's report on the scalar features, one self-contained HTML file.

    Never on the embeddings: its metric for them runs t-SNE each time, half a minute for 400 pictures, and its detectors
    at their defaults call equal data drifted, or nothing (docs/drift.md). The verdict is ours alone.
    """
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    columns = list(reference.features)

    def dataset(sample: Sample) -> Dataset:
        return Dataset.from_pandas(
            pd.DataFrame(sample.features), data_definition=DataDefinition(numerical_columns=columns)
        )

    snapshot = Report([DataDriftPreset(columns=columns, num_method="ks")]).run(dataset(traffic), dataset(reference))
    snapshot.save_html(str(page))
