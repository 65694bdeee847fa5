"""Alibi Detect decides in place of the package's own tests, in its own environment: `make test-alibi`."""

import dagster as dg
import numpy as np
import pytest

from vlm_assets.errors import ConfigError
from vlm_assets.monitoring.alibi import PYTHON_VARIABLE, alibi_detector, alibi_python
from vlm_assets.monitoring.config import DriftConfig
from vlm_assets.monitoring.drift import DriftTest
from vlm_assets.monitoring.features import Sample
from vlm_assets.monitoring.report import compare


def sample(count: int, shift: float, seed: int) -> Sample:
    embeddings = np.random.default_rng(seed).normal(shift, 1, (count, 16)).astype(np.float32)
    return Sample([str(row) for row in range(count)], embeddings, {"brightness": embeddings[:, 0].astype(np.float64)})


def installed() -> bool:
    try:
        return alibi_python().is_file()
    except ConfigError:
        return False


@pytest.mark.skipif(not installed(), reason="Alibi Detect is not installed: make alibi")
def test_alibi_finds_the_shift_and_leaves_equal_samples_alone():
    config = DriftConfig(detector="alibi", alpha=0.02, windows=1, permutations=99)
    detector_said: list[DriftTest] = []

    @dg.op
    def judge(context: dg.OpExecutionContext) -> list[str]:
        detect = alibi_detector(context)

        def kept(reference: Sample, traffic: Sample, settings: DriftConfig) -> DriftTest:
            detector_said.append(detect(reference, traffic, settings))
            return detector_said[-1]

        sides = (sample(60, 0.0, seed=2), sample(60, 1.0, seed=3))
        return [compare(sample(80, 0.0, seed=1), traffic, config, detector=kept)["verdict"] for traffic in sides]

    @dg.job
    def judging() -> None:
        judge()

    result = judging.execute_in_process()
    assert result.output_for_node("judge") == ["no drift", "drifted"]
    alike, shifted = detector_said
    assert shifted.p_value == pytest.approx(0.01)  # the smallest of 99 permutations, not 0
    assert alike.p_value > 0.02
    assert shifted.effect_size > 1 > alike.effect_size
    assert shifted.p_classifier is None


def test_without_its_environment_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setenv(PYTHON_VARIABLE, "/nowhere/python")
    with pytest.raises(ConfigError, match=r"/nowhere/python does not exist\. Run `make alibi`, set VLM_ALIBI_PYTHON"):
        alibi_python()
