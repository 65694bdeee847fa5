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

from tests.benchmarks.bench_train import MINI_SPECIAL, SPECIAL, build, device_name
from vlm_serving.decoder import Decoder
from vlm_serving.generation import GenerationOptions
from vlm_serving.model import use_fused_attention
from vlm_serving.packed import pack_linears
from vlm_serving.search import Start, search

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GOALS = {1: 2.0, 3: 2.5}  # by beams
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
