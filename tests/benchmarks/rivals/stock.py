"""BLIP as transformers' documentation uses it: what every rival serves."""

import io
from typing import Any

import torch
from PIL import Image
from transformers import BlipForConditionalGeneration, BlipProcessor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class StockCaptioner:
    """The stock model over a bundle's weights, tokenizer and image processor. One caller at a time."""

    def __init__(self, bundle: str, threads: int, dtype: str, tokens: int) -> None:
        torch.set_num_threads(threads)
        self.threads, self.tokens, self.dtype = threads, tokens, DTYPES[dtype]
        self.processor: Any = BlipProcessor.from_pretrained(bundle)
        self.model: Any = BlipForConditionalGeneration.from_pretrained(bundle, dtype=self.dtype).eval()

    @torch.inference_mode()
    def __call__(self, pictures: list[Image.Image]) -> list[str]:
        """Caption RGB pictures in one pass."""
        if torch.get_num_threads() != self.threads:  # torch counts them per calling thread
            torch.set_num_threads(self.threads)
        inputs = self.processor(images=pictures, return_tensors="pt").to(dtype=self.dtype)
        ids = self.model.generate(**inputs, max_new_tokens=self.tokens, min_new_tokens=self.tokens)
        return self.processor.batch_decode(ids, skip_special_tokens=True)


def decoded(data: bytes) -> Image.Image:
    """A picture from its file."""
    return Image.open(io.BytesIO(data)).convert("RGB")
