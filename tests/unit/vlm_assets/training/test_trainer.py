"""Training: it learns by heart what it is given, and says what is missing."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from tests.tiny import picture_bytes, tiny_bundle
from vlm_assets.errors import TrainingError
from vlm_assets.training.batches import Collator, Example, Normaliser, PairDataset
from vlm_assets.training.recipe import TrainSettings
from vlm_assets.training.trainer import train
from vlm_serving.bundle import Bundle, open_bundle
from vlm_serving.captioner import Captioner
from vlm_serving.hardware import resolve_device
from vlm_serving.images import decode_picture
from vlm_serving.model import load_model

CAPTIONS = [
    "a red square",
    "a blue circle",
    "a green dress",
    "a woman scientist",
    "a dress",
    "a circle",
    "a red dress",
    "sleeves",
]
FAST = TrainSettings(
    steps=150, batch_size=8, learning_rate=5e-3, precision="fp32", threads=1, label_smoothing=0.0, attention="fused",
    validation_pictures=0,
)  # fmt: skip


def examples(bundle: Path) -> list[Example]:
    captioner = Captioner(open_bundle(bundle))
    contract = captioner.bundle.contract
    pairs: list[Example] = []
    for number, caption in enumerate(CAPTIONS):
        ids = captioner.tokenizer.encode(caption, add_special_tokens=False)
        pairs.append(Example(picture_bytes(number, (32, 32)), (contract.bos_token_id, *ids, contract.eos_token_id)))
    return pairs


def test_eight_pictures_learnt_by_heart_come_back_verbatim_through_the_captioner(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    model = load_model(bundle.path)
    result = train(model, examples(bundle.path), [], bundle.contract, FAST, tmp_path / "scratch", print)
    captioner = Captioner(bundle, threads=1, model=model)
    said = captioner.caption([decode_picture(picture_bytes(number, (32, 32))) for number in range(len(CAPTIONS))])
    assert [caption.text for caption in said] == CAPTIONS
    assert all(caption.confidence > 0.5 for caption in said)
    assert (result.steps, result.resumed_from_step) == (150, 0)
    assert result.train_loss[-1][1] < 0.2 < result.train_loss[0][1]


def test_an_empty_train_split_is_an_error_before_any_work(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    with pytest.raises(TrainingError, match="nothing to learn from: the train split is empty"):
        train(load_model(bundle.path), [], [], bundle.contract, FAST, tmp_path / "scratch", print)


def first_loss(bundle: Bundle, settings: TrainSettings, scratch: Path, pairs: list[Example], given: int) -> float:
    model = load_model(bundle.path)
    result = train(model, pairs, [], bundle.contract, settings, scratch, lambda _: None, prompt_tokens=given)
    ((_, loss),) = result.train_loss
    return loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("given", [0, 2], ids=["no prompt", "a prompt of two tokens"])
def test_the_loss_is_torchs_cross_entropy_smoothed_over_the_tokens_that_are_learnt(
    smoothing: float, given: int, tmp_path: Path
) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    pairs = [replace(pair, input_ids=(pair.input_ids[0], *[7, 8][:given], *pair.input_ids[1:]))
             for pair in examples(bundle.path)]  # fmt: skip
    dataset = PairDataset(pairs)
    batch = Normaliser(bundle.contract)(Collator(bundle.contract)([dataset[index] for index in range(len(pairs))]))
    model = load_model(bundle.path)
    with torch.no_grad():
        logits = model(**batch).logits[:, given:-1]  # what comes after BOS and prompt is predicted from here on
    targets = batch["labels"][:, 1 + given :]
    expected = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), ignore_index=-100, label_smoothing=smoothing
    )
    settings = replace(FAST, steps=1, label_smoothing=smoothing)
    assert first_loss(bundle, settings, tmp_path / "s", pairs, given) == pytest.approx(float(expected), rel=1e-5)


def test_a_line_tells_step_loss_speed_and_what_is_left(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))

    def lines(report_every_s: float) -> list[str]:
        said: list[str] = []
        settings = replace(FAST, steps=40, report_every_s=report_every_s)
        scratch = tmp_path / str(report_every_s)
        train(load_model(bundle.path), examples(bundle.path), [], bundle.contract, settings, scratch, said.append)
        return [line for line in said if line.startswith("training ") and "%" in line]

    found = [re.fullmatch(LINE, line) for line in lines(0)]
    assert [match and match.groups()[:2] for match in found] == [("2", "1"), ("25", "10"), ("50", "20"), ("75", "30"),
                                                                 ("100", "40")]  # fmt: skip
    losses, speeds, left = ([float(match[number]) for match in found if match] for number in (3, 4, 5))
    assert losses[0] > losses[-1] > 0
    assert min(speeds) > 0
    assert left[-1] == 0
    (last,) = lines(1000)
    assert "step 40/40" in last


LINE = r"training +(\d+)%  step (\d+)/40  loss (\d\.\d{3})  (\d+) pictures/s  ETA (\d+) s"


@pytest.mark.parametrize(
    ("setting", "cuda", "native", "expected"),
    [
        ("auto", True, ["cuda"], ("cuda", "bf16", "the GPU has bf16")),
        ("auto", True, [], ("cuda", "fp32", "the GPU lacks bf16")),
        ("auto", False, ["amx_bf16", "avx512_bf16"], ("cpu", "bf16", "the CPU has AMX")),
        ("auto", False, ["avx512_bf16"], ("cpu", "bf16", "the CPU has AVX512-BF16")),
        ("auto", False, ["avx2"], ("cpu", "fp32", "the CPU has neither AMX nor AVX512-BF16")),
        ("fp16", True, [], ("cuda", "fp16", "as configured")),
        ("fp32", False, ["amx_bf16"], ("cpu", "fp32", "as configured")),
    ],
)
def test_device_and_precision_are_chosen_by_what_the_hardware_has_and_the_log_says_why(
    setting: str, cuda: bool, native: list[str], expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bool(native))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(native, True))
    assert resolve_device(setting) == expected


class Watch(TrainerCallback):
    """What each step of the optimizer is about to use."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.decays: set[float] = set()
        self.gradient_norms: list[float] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any = None, optimizer: Any = None, **__: Any) -> None:
        """After clipping."""
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.decays |= {group["weight_decay"] for group in optimizer.param_groups}
        gradients = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
        self.gradient_norms.append(float(torch.cat(gradients).norm()))


def watched(settings: TrainSettings, path: Path) -> Watch:
    bundle, watch = open_bundle(tiny_bundle(path / "bundle")), Watch()
    model = load_model(bundle.path)
    train(model, examples(bundle.path), [], bundle.contract, settings, path / "scratch", print, callbacks=[watch])
    return watch


def test_the_learning_rate_warms_up_and_falls_as_a_cosine_and_decay_is_the_one_configured(tmp_path: Path) -> None:
    watch = watched(replace(FAST, steps=20, learning_rate=1e-3, warmup_share=0.2, weight_decay=0.07), tmp_path)
    warm_up = [1e-3 * step / 4 for step in range(4)]
    falling = [1e-3 * (1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
    assert watch.rates == pytest.approx(warm_up + falling)
    assert watch.decays == {0.0, 0.07}  # biases and norms are never decayed


def test_gradients_are_clipped_to_the_configured_norm(tmp_path: Path) -> None:
    free, clipped = (
        watched(replace(FAST, steps=3, max_grad_norm=limit), tmp_path / str(limit)).gradient_norms
        for limit in (1000.0, 0.01)
    )
    assert min(free) > 0.1
    assert clipped == pytest.approx([0.01] * 3, rel=1e-3)


@pytest.mark.slow
def test_a_compiled_model_trains_the_same_and_keeps_its_names(tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle(tmp_path / "bundle"))
    plain, compiled = load_model(bundle.path), load_model(bundle.path)
    curves = [
        train(
            model, examples(bundle.path), [], bundle.contract,
            replace(FAST, steps=20, checkpoint_every_steps=10, compile=compiles), tmp_path / str(compiles), print,
        ).train_loss
        for model, compiles in ((plain, False), (compiled, True))
    ]  # fmt: skip
    for (step, loss), (again, other) in zip(*curves, strict=True):
        assert (step, loss) == (again, pytest.approx(other, rel=1e-3))
    names = load_file(tmp_path / "False" / "checkpoint-20" / "model.safetensors").keys()
    assert load_file(tmp_path / "True" / "checkpoint-20" / "model.safetensors").keys() == names
    assert compiled.state_dict().keys() == plain.state_dict().keys()
