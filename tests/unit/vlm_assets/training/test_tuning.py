"""Threads and attention kernel: measured once, kept after an interruption."""

import time
from pathlib import Path

import torch

from tests.tiny import tiny_bundle
from vlm_assets.training.tuning import Tuning, settle
from vlm_serving.model import FusedVisionAttention, load_model


def is_fused(model: torch.nn.Module) -> bool:
    return any(isinstance(module, FusedVisionAttention) for module in model.modules())


def test_the_faster_kernel_is_taken_and_kept_by_the_run_that_resumes(tmp_path: Path) -> None:
    model = load_model(tiny_bundle(tmp_path / "bundle"))

    def slow_when_fused() -> None:
        time.sleep(0.02 if is_fused(model) else 0.001)

    tuning, why = settle(model, 1, "auto", "cpu", tmp_path / "scratch", slow_when_fused)
    assert tuning == Tuning(threads=1, fused_attention=False)
    assert "1 thread, fused attention 2" in why  # the rival's milliseconds
    assert not is_fused(model)

    def slow_when_stock() -> None:
        time.sleep(0.001 if is_fused(model) else 0.02)

    again, why = settle(model, 1, "auto", "cpu", tmp_path / "scratch", slow_when_stock)
    assert (again, why) == (tuning, "as before the interruption")
    fresh, _ = settle(model, 1, "auto", "cpu", tmp_path / "elsewhere", slow_when_stock)
    assert fresh == Tuning(threads=1, fused_attention=True)
    assert is_fused(model)


def test_a_gpu_always_gets_the_fused_kernel_unmeasured(tmp_path: Path) -> None:
    model = load_model(tiny_bundle(tmp_path / "bundle"), fused=False)
    tuning, why = settle(model, 2, "auto", "cuda", tmp_path / "scratch", lambda: 1 / 0)
    assert (tuning, why) == (Tuning(2, True), "on a GPU")


def test_what_is_configured_is_not_measured(tmp_path: Path) -> None:
    model = load_model(tiny_bundle(tmp_path / "bundle"))
    assert settle(model, 1, "stock", "cpu", tmp_path, lambda: 1 / 0) == (Tuning(1, False), "as configured")
    assert not is_fused(model)
