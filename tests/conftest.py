"""Settings of every test: one thread per library, nothing of the caller's deployment."""

import os
import sys
from collections.abc import Iterator

import pytest

# before any library is imported: on two cores, two processes with two threads each run ten times slower, not twice
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.update(
    DO_NOT_TRACK="true",
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    MPLBACKEND="Agg",
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
)
_DEPLOYMENT = ("DAGSTER_HOME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
_OF_THE_TESTS = ("VLM_CLOTHING",)  # where photographs lie, for the tests that want some
for _name in [name for name in os.environ if name.startswith("VLM_") and name not in _OF_THE_TESTS] + [*_DEPLOYMENT]:
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """torch counts cores itself. Only where a test module has imported it: most tests should not pay for it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _tracking_uri_stays_with_its_test() -> Iterator[None]:
    """MLflow writes the address it is told into the environment, where the next test would find it."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
