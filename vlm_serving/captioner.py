"""Pictures in, captions out: the one piece of code that captions, in evaluation and in serving alike."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer, BlipForConditionalGeneration

from vlm_serving.attention import ANSWER_SIDE, heat, state_maps
from vlm_serving.bundle import GOLDEN, Bundle
from vlm_serving.decoder import Decoder
from vlm_serving.errors import BundleError, RequestError
from vlm_serving.generation import FinishReason, GenerationOptions
from vlm_serving.hardware import resolve_device
from vlm_serving.model import load_model
from vlm_serving.packed import pack_linears
from vlm_serving.preprocessing import decode_for_model, model_pixels
from vlm_serving.search import Spoken, Start, search
from vlm_serving.words import Word, caption_words, tidy, visible_pieces

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Golden vectors hold across machines only up to rounding: one grey level in the input, cosine in the embedding.
GOLDEN_MAX_PIXEL_DIFFERENCE = 1
GOLDEN_MIN_COSINE = {"fp32": 0.999, "bf16": 0.98, "fp16": 0.98}
# On a CPU more pictures at once make no layer faster, but from 32 MB on glibc fetches each activation's memory from the
# kernel anew: eight pictures of 384 px took a sixth to a third longer together than one by one.
WIDEST_BYTES = 8 << 20  # of the activation in the middle of an encoder layer


@dataclass(frozen=True)
class Alternative:
    """What else could be said of a picture, in the words of Caption."""

    text: str
    confidence: float
    token_count: int
    finish_reason: FinishReason


@dataclass(frozen=True)
class Caption:
    """One caption. `confidence` is the geometric mean of its tokens' probabilities, 0..1; the end is a token too."""

    text: str
    confidence: float
    token_count: int
    embedding: NDArray[np.float32]  # (D,) mean of the vision encoder's last states
    words: tuple[Word, ...] = ()  # joined by spaces they are the text
    token_ids: tuple[int, ...] = ()  # as generated: after start and prompt, with the end, without padding
    token_logprobs: tuple[float, ...] = ()  # natural, one per token, whatever the options forbade
    finish_reason: FinishReason = "stop"  # stop: it is complete; length: it was cut off
    alternatives: tuple[Alternative, ...] = ()  # the next best, best first: `num_captions` - 1 of them
    read_token_count: int = 0  # what the decoder read before it spoke: patches of the picture, start and prompt
    heat: NDArray[np.uint8] | None = None  # (W, G, G) where the model looked for each word, if it was asked


class Captioner:
    """A loaded bundle. Not thread-safe: one caller at a time, in batches. Without options, the bundle's own hold."""

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        model: BlipForConditionalGeneration | None = None,
        attention: str = "fused",
    ) -> None:
        """`attention`: of the vision encoder, fused or stock, equal within rounding. `model`: take this one, moved and
        cast in place, instead of the bundle's weights; its attention stays as it is.
        """
        if threads:
            torch.set_num_threads(threads)
        self.bundle = bundle
        self.options = bundle.generation
        where, self.precision, _ = resolve_device(precision, device)
        self.device = torch.device(where)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(bundle.path)
        self.dtype = PRECISIONS[self.precision]
        loaded: Any = load_model(bundle.path, fused=attention == "fused") if model is None else model
        loaded = loaded.to(device=self.device, dtype=self.dtype).eval()
        self.decoder = Decoder(loaded, graphs=model is None)  # a model in training changes under its graphs
        self.vision: Any = loaded.vision_model
        self._encoder_batch = self._pictures_at_once()
        if model is None:
            pack_linears(self.vision)
        self.prompt_ids: list[int] = self.tokenizer.encode(bundle.prompt, add_special_tokens=False)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(bundle.contract.mean, device=self.device).view(shape)
        self._std = torch.tensor(bundle.contract.std, device=self.device).view(shape)
        self.on_stage: Callable[[str, float], None] | None = None  # hears `encode`, `generate` and seconds, each pass

    @property
    def version(self) -> str:
        """The bundle's version: which model says this."""
        return self.bundle.version

    def caption(self, pictures: Sequence[Image.Image], options: GenerationOptions | None = None) -> list[Caption]:
        """Caption RGB pictures of any size."""
        if not pictures:
            return []
        pixels = np.stack([model_pixels(picture, self.bundle.contract) for picture in pictures])
        return self.caption_pixels(pixels, options)

    @torch.inference_mode()
    def caption_pixels(
        self, pixels: NDArray[np.uint8], options: GenerationOptions | None = None, *, explain: bool = False
    ) -> list[Caption]:
        """Caption pictures already at the model's size: uint8 (B, 3, H, W), as `model_pixels` gives them.

        `explain` adds `heat`, for one more pass of the decoder over what was said; the picture is not read again.
        Raises RequestError for a prompt that leaves no room.
        """
        options = self._within(options or self.options)
        start = self._start(options)
        started_s = time.perf_counter()
        states = self.encode(torch.from_numpy(pixels))  # (B, T, D)
        embeddings = states.float().mean(dim=1).cpu().numpy()  # (B, D); a GPU has done its work when they are here
        encoded_s = time.perf_counter()
        found = search(self.decoder, states, start, options)
        if self.on_stage:
            self.on_stage("encode", encoded_s - started_s)
            self.on_stage("generate", time.perf_counter() - encoded_s)
        read = states.shape[1] + len(start.token_ids)
        captions = [self._caption(spoken, embedding, read) for spoken, embedding in zip(found, embeddings, strict=True)]
        return self._explained(captions, states, start) if explain else captions

    def _explained(self, captions: list[Caption], states: torch.Tensor, start: Start) -> list[Caption]:
        found = state_maps(self, states, [caption.token_ids for caption in captions], start.token_ids)
        return [
            replace(caption, heat=heat(one.maps, ANSWER_SIDE)) for caption, one in zip(captions, found, strict=True)
        ]

    def _start(self, options: GenerationOptions) -> Start:
        contract = self.bundle.contract
        prompt_ids = self.prompt_ids
        if options.prompt is not None:
            prompt_ids = self.tokenizer.encode(options.prompt, add_special_tokens=False)
            room = self.decoder.max_tokens - 1 - options.max_new_tokens
            if len(prompt_ids) > room:
                raise RequestError(
                    f"prompt has {len(prompt_ids)} tokens; beside {options.max_new_tokens} new ones the model has room "
                    f"for {room}. Shorten it, or ask for fewer by max_new_tokens."
                )
        return Start((contract.bos_token_id, *prompt_ids), contract.eos_token_id)

    def _within(self, options: GenerationOptions) -> GenerationOptions:
        longest = min(options.max_new_tokens, self.bundle.contract.max_caption_tokens)
        return replace(options, max_new_tokens=longest, min_new_tokens=min(options.min_new_tokens, longest))

    def _caption(self, found: Sequence[Spoken], embedding: NDArray[np.float32], read_token_count: int) -> Caption:
        """All that was found for one picture, best first, as a caption with its alternatives."""
        spoken, text = found[0], self._text(found[0])
        return Caption(
            text=text,
            confidence=spoken.confidence,
            token_count=len(spoken.token_ids),
            embedding=embedding,
            words=caption_words(text, visible_pieces(self.tokenizer, spoken.token_ids), spoken.logprobs),
            token_ids=spoken.token_ids,
            token_logprobs=spoken.logprobs,
            finish_reason=spoken.finish_reason,
            alternatives=tuple(
                Alternative(self._text(other), other.confidence, len(other.token_ids), other.finish_reason)
                for other in found[1:]
            ),
            read_token_count=read_token_count,
        )

    def _text(self, spoken: Spoken) -> str:
        return tidy(self.tokenizer.decode(spoken.token_ids, skip_special_tokens=True))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> the model's input, (B, 3, H, W) in the model's precision."""
        scaled = pixels.to(self.device).float().div_(255).sub_(self._mean).div_(self._std)
        return scaled.to(self.dtype)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) -> what the decoder reads: (B, T, D), the class token first, then patches by rows."""
        parts = self.normalise(pixels).split(self._encoder_batch)
        seen = [self.vision(pixel_values=part).last_hidden_state for part in parts]
        return seen[0] if len(seen) == 1 else torch.cat(seen)

    def _pictures_at_once(self) -> int:
        """How many pictures go through the encoder together: on a GPU all, on a CPU as WIDEST_BYTES allows."""
        if self.device.type != "cpu":
            return sys.maxsize
        config = self.vision.config
        patches = (config.image_size // config.patch_size) ** 2 + 1
        return max(1, WIDEST_BYTES // (patches * config.intermediate_size * self.dtype.itemsize))

    def check_golden(self) -> int:
        """Caption the bundle's golden pictures and compare input, embedding and text with what was recorded.

        Returns how many were checked; raises BundleError at the first that differs: then this machine's libraries
        do not see what the training machine saw, and the model must not serve here.
        """
        entries = self._golden_entries()
        for entry in entries:
            self.check_golden_caption(entry, self.caption_pixels(self._golden_pixels(entry)[None])[0])
        return len(entries)

    def golden_picture(self) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """The first golden entry, for `check_golden_caption`, and its picture (3, H, W). Raises BundleError."""
        entry = self._golden_entries()[0]
        return entry, self._golden_pixels(entry)

    def _golden_entries(self) -> list[dict[str, Any]]:
        path = self.bundle.path / GOLDEN
        if not path.is_file():
            raise BundleError(f"The bundle {self.bundle.path} has no {GOLDEN}; it cannot be checked before serving.")
        return json.loads(path.read_text())

    def _golden_pixels(self, entry: dict[str, Any]) -> NDArray[np.uint8]:
        data = (self.bundle.path / entry["picture"]).read_bytes()
        pixels = decode_for_model(data, self.bundle.contract).pixels
        recorded = np.asarray(Image.open(self.bundle.path / entry["pixels"])).transpose(2, 0, 1)
        worst = int(np.abs(pixels.astype(np.int16) - recorded.astype(np.int16)).max())
        where = self._golden_name(entry)
        if worst > GOLDEN_MAX_PIXEL_DIFFERENCE:
            raise BundleError(
                f"{where}: preprocessing differs by {worst} grey levels (limit 1): check Pillow's and the "
                "resizer's version."
            )
        return pixels

    def check_golden_caption(self, entry: dict[str, Any], caption: Caption) -> None:
        """Compare what was said of a golden picture with what was recorded. Raises BundleError."""
        where = self._golden_name(entry)
        cosine = _cosine(caption.embedding, np.asarray(entry["embedding"], dtype=np.float32))
        limit = GOLDEN_MIN_COSINE[self.precision]
        if cosine < limit:
            raise BundleError(f"{where}: the embedding's cosine is {cosine:.4f}, the limit {limit}: weights differ.")
        if self.precision == "fp32" and caption.text != entry["caption"]:
            raise BundleError(f"{where}: the caption is {caption.text!r}, recorded was {entry['caption']!r}.")

    def _golden_name(self, entry: dict[str, Any]) -> str:
        return f"Golden picture {entry['picture']} of bundle {self.version}"


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
