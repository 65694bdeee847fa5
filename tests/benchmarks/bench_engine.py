"""Captioning speed: this project's engine beside transformers' `generate`, both on one BLIP of random weights.

Both read the same pixels in the same dtype, by turns; stock is the model as `from_pretrained` gives it. Random weights
never end a caption, so every caption has `--tokens` tokens. Needs only torch, transformers, numpy and pillow:

    python -m tests.benchmarks.bench_engine [--model base|mini] [--dtype fp32] [--batch 4] [--tokens 20] [--rounds 3]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.benchmarks.bench_train import MINI_SPECIAL, SPECIAL, build, device_name
from vlm_serving.decoder import Decoder
from vlm_serving.generation import GenerationOptions
from vlm_serving.model import use_fused_attention
from vlm_serving.packed import pack_linears
from vlm_serving.search import Start, search

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GOALS = {1: 2.0, 3: 2.5}  # by beams
GPU_GOALS = {1: 4.0, 32: 2.5}  # by batch
SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("base", "mini"), default="base")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    special = SPECIAL if options.model == "base" else MINI_SPECIAL
    device, dtype = "cuda" if torch.cuda.is_available() else "cpu", DTYPES[options.dtype]
    size = 384 if options.model == "base" else 96
    pixels = torch.randn(options.batch, 3, size, size, generator=torch.Generator().manual_seed(SEED)).to(device, dtype)
    print(f"{options.model}, {options.dtype}, batch {options.batch}, {options.tokens} tokens, {options.rounds} rounds, "
          f"on {device_name()}; ms a picture")  # fmt: skip
    for beams, goal in GOALS.items():
        goal = GPU_GOALS.get(options.batch, goal) if device == "cuda" else goal
        generation = GenerationOptions(max_new_tokens=options.tokens, min_new_tokens=options.tokens, num_beams=beams)
        ways = {
            "stock": stock(options.model, device, dtype, pixels, special, generation),
            "ours": ours(options.model, device, dtype, pixels, special, generation),
        }
        said = {name: way() for name, way in ways.items()}  # the first call warms up
        times_s: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                started_s = time.perf_counter()
                way()
                times_s[name].append(time.perf_counter() - started_s)
        ratios = [theirs / own for theirs, own in zip(times_s["stock"], times_s["ours"], strict=True)]
        ratio = statistics.median(ratios)
        ms = {name: 1000 * statistics.median(values) / options.batch for name, values in times_s.items()}
        same = sum(one == other for one, other in zip(said["stock"], said["ours"], strict=True))
        print(
            f"{'greedy' if beams == 1 else f'{beams} beams':8} stock {ms['stock']:7.1f}  ours {ms['ours']:7.1f}  "
            f"{ratio:.2f} x (rounds {min(ratios):.2f} to {max(ratios):.2f}), goal {goal} x "
            f"{'reached' if ratio >= goal else 'NOT reached'}; captions equal: {same} of {options.batch}"
        )
        bound_s = bound(options.model, device, dtype, options.batch, options.tokens, beams)
        print(f"{'':8} ours takes {statistics.median(times_s['ours']) / bound_s:.1f} x what arithmetic and memory need")


def bound(name: str, device: str, dtype: torch.dtype, batch: int, tokens: int, beams: int) -> float:
    """Seconds that no engine can beat here: the encoder's arithmetic at the rate of a large matrix product, and of each
    step the longer of its arithmetic and of reading its weights and the pictures' keys and values, once.
    """
    model = build(name).to(dtype)
    side = int(model.config.vision_config.image_size)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        states = model.vision_model(pixel_values=torch.zeros(1, 3, side, side, dtype=dtype)).last_hidden_state
    rates = gemm_rate(device, dtype), copy_rate(device)
    decoder = model.text_decoder
    layers = decoder.bert.encoder.layer
    per_layer = sum(weight.numel() for weight in layers[0].parameters())
    of_picture = sum(weight.numel() for part in ("key", "value")
                     for weight in getattr(layers[0].crossattention.self, part).parameters())  # fmt: skip
    reading = 2.0 * len(layers) * of_picture * states.shape[1]  # FLOPs: keys and values of one picture
    weights = len(layers) * (per_layer - of_picture) + sum(weight.numel() for weight in decoder.cls.parameters())
    seen = 2 * len(layers) * states.shape[1] * decoder.config.hidden_size
    flops = 2.0 * batch * beams * (weights + seen)
    step_s = max(flops / rates[0], dtype.itemsize * (weights + batch * seen) / rates[1])
    return batch * (counter.get_total_flops() + reading) / rates[0] + tokens * step_s


def gemm_rate(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of a large product."""
    size = 8192 if device == "cuda" else 2048
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / fastest(lambda: one @ other, device)


def copy_rate(device: str) -> float:
    """Bytes/s read from memory that no cache holds."""
    source = torch.ones(2**30 if device == "cuda" else 2**26, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: target.copy_(source), device)


def fastest(action: Callable[[], object], device: str) -> float:
    times_s: list[float] = []
    for _ in range(6):
        started_s = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        times_s.append(time.perf_counter() - started_s)
    return min(times_s)


Way = Callable[[], list[list[int]]]  # captions a batch: the ids of each picture


def stock(
    name: str, device: str, dtype: torch.dtype, pixels: torch.Tensor, special: dict[str, int], how: GenerationOptions
) -> Way:
    torch.manual_seed(SEED)
    model = build(name).to(device=device, dtype=dtype).eval()
    ids = torch.tensor([[special["bos_token_id"]]] * len(pixels), device=device)

    @torch.inference_mode()
    def way() -> list[list[int]]:
        states = model.vision_model(pixel_values=pixels).last_hidden_state
        tokens = model.text_decoder.generate(
            input_ids=ids, encoder_hidden_states=states, max_new_tokens=how.max_new_tokens,
            encoder_attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=device),
            min_new_tokens=how.min_new_tokens, num_beams=how.num_beams, do_sample=False,
            eos_token_id=special["eos_token_id"], pad_token_id=special["pad_token_id"],
        )  # fmt: skip
        return tokens[:, 1:].tolist()

    return way


def ours(
    name: str, device: str, dtype: torch.dtype, pixels: torch.Tensor, special: dict[str, int], how: GenerationOptions
) -> Way:
    torch.manual_seed(SEED)
    model = build(name).to(device=device, dtype=dtype).eval()
    use_fused_attention(model)
    decoder, vision = Decoder(model), model.vision_model
    pack_linears(vision)
    start = Start((special["bos_token_id"],), special["eos_token_id"])

    @torch.inference_mode()
    def way() -> list[list[int]]:
        found = search(decoder, vision(pixel_values=pixels).last_hidden_state, start, how)
        return [list(captions[0].token_ids) for captions in found]

    return way


if __name__ == "__main__":
    main()
