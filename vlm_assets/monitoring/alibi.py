"""Alibi Detect's MMD in place of the package's own tests: in an environment of its own, through Dagster Pipes.

It wants numpy < 2 and transformers < 5, so `make alibi` installs it into .venv-alibi. Its licence (BSL 1.1) is not an
open-source one: docs/drift.md.
"""

import os
import tempfile
from pathlib import Path

import dagster as dg
import numpy as np

from vlm_assets.errors import ConfigError, SourceError
from vlm_assets.monitoring.config import DriftConfig
from vlm_assets.monitoring.drift import DriftTest, effect_of
from vlm_assets.monitoring.features import Sample
from vlm_assets.monitoring.report import Detector

PYTHON_VARIABLE = "VLM_ALIBI_PYTHON"
DEFAULT_PYTHON = Path(__file__).parents[2] / ".venv-alibi" / "bin" / "python"
WORKER = Path(__file__).with_name("alibi_worker.py")


def alibi_python() -> Path:
    """The interpreter that has Alibi Detect: VLM_ALIBI_PYTHON, or that of `make alibi`. ConfigError without one."""
    python = Path(os.environ.get(PYTHON_VARIABLE) or DEFAULT_PYTHON)
    if not python.is_file():
        raise ConfigError(
            f"The detector alibi needs an environment of its own and {python} does not exist. Run `make alibi`, "
            f"set {PYTHON_VARIABLE} to a Python that has it, or configure drift_report with detector: permutation."
        )
    return python


def alibi_detector(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Detector:
    """A detector that asks the worker; its log lines become those of the run."""

    def detect(reference: Sample, traffic: Sample, config: DriftConfig) -> DriftTest:
        with tempfile.TemporaryDirectory(prefix="alibi-") as folder:
            samples = Path(folder) / "samples.npz"
            generator = np.random.default_rng(config.seed)
            x, y = (_subsample(side.embeddings, config.max_rows, generator) for side in (reference, traffic))
            np.savez(samples, reference=x, traffic=y)
            finished = dg.PipesSubprocessClient().run(
                context=context,
                command=[str(alibi_python()), "-P", str(WORKER)],
                extras={"samples": str(samples), "permutations": config.permutations, "seed": config.seed},
            )
        found = next((message for message in finished.get_custom_messages() if "squared_mmd" in message), None)
        if found is None:
            raise SourceError(f"{WORKER.name} ended without a result; its output is in the run's compute log.")
        statistic, p_value = float(found["squared_mmd"]), float(found["p_value"])
        return DriftTest(statistic, p_value, len(x), len(y), effect_of(statistic), p_mmd=p_value)

    return detect


def _subsample(rows: np.ndarray, limit: int, generator: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= limit else rows[np.sort(generator.choice(len(rows), limit, replace=False))]
