"""Where the model looked while it said a word: cross-attention as a map over the picture.

Attention is not an explanation: other weights can give the same words (Jain and Wallace 2019, "Attention is not
Explanation", NAACL), and what a patch holds has been mixed with all others by the vision encoder. A map says which
parts the decoder read from, no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d

from vlm_serving.words import tidy, visible_pieces, word_numbers

if TYPE_CHECKING:
    from vlm_serving.captioner import Captioner

ANSWER_SIDE = 12  # patches per side in an answer: BLIP's 24 x 24 for each word would be 20 kB of digits


@dataclass(frozen=True)
class WordMaps:
    """The words of one caption and for each the share of attention that every patch of the picture got.

    `maps` is float32 (W, G, G), rows from top to bottom. A map adds up to less than 1: the rest went to the vision
    encoder's class token, which stands for the whole picture.
    """

    words: tuple[str, ...]
    maps: NDArray[np.float32]


@torch.inference_mode()
def word_maps(captioner: Captioner, pixels: NDArray[np.uint8], captions: Sequence[Sequence[int]]) -> list[WordMaps]:
    """Maps for pictures, uint8 (B, 3, H, W), and what was said of them (`Caption.token_ids`) after the own prompt."""
    start = [captioner.bundle.contract.bos_token_id, *captioner.prompt_ids]
    return state_maps(captioner, captioner.encode(torch.from_numpy(pixels)), captions, start)


@torch.inference_mode()
def state_maps(
    captioner: Captioner, states: torch.Tensor, captions: Sequence[Sequence[int]], start: Sequence[int]
) -> list[WordMaps]:
    """Maps for pictures as the vision encoder left them, (B, T, D), and what was said of them, in one pass.

    `start`: the tokens before every caption. The mean over all heads of the decoder's last layer, at the places that
    the word's pieces were read off.
    """
    pad = captioner.bundle.contract.pad_token_id
    longest = max(len(ids) for ids in captions)
    rows = [[*start, *ids, *[pad] * (longest - len(ids))][:-1] for ids in captions]
    read = captioner.decoder.looked(states, torch.tensor(rows, device=captioner.device))  # (B, heads, L, T)
    weights = read.float().mean(dim=1).cpu().numpy()  # (B, L, 1 + G * G)
    side = round((weights.shape[2] - 1) ** 0.5)
    # the place before a token is where it was predicted; the first patch is the class token
    read = weights[:, len(start) - 1 :, 1:].reshape(len(rows), longest, side, side)
    return [_of_words(captioner.tokenizer, ids, maps) for ids, maps in zip(captions, read, strict=True)]


def heat(maps: NDArray[np.float32], side: int | None = None) -> NDArray[np.uint8]:
    """(W, G, G) shares -> 0..255, where 255 is the most that any patch got for any word of the caption.

    The root of the share: so a glance sees what is a tenth of the peak. One scale for all words: a word for which the
    model looked nowhere in particular stays dark all over. Larger grids are averaged down
    to `side`, if that is given.
    """
    if side and len(maps) and maps.shape[1] > side:
        maps = adaptive_avg_pool2d(torch.from_numpy(maps), side).numpy()
    peak = maps.max(initial=0.0)
    return np.zeros(maps.shape, dtype=np.uint8) if peak <= 0 else np.rint(255 * np.sqrt(maps / peak)).astype(np.uint8)


def _of_words(tokenizer: Any, token_ids: Sequence[int], maps: NDArray[np.float32]) -> WordMaps:
    """The mean of its pieces' maps for each word. `maps`: (L, G, G), one per token."""
    text = tidy(tokenizer.decode(list(token_ids), skip_special_tokens=True))
    numbers = np.array([-1 if n is None else n for n in word_numbers(text, visible_pieces(tokenizer, token_ids))])
    words = tuple(text.split())
    found = [maps[: len(numbers)][numbers == number].mean(axis=0) for number in range(len(words))]
    return WordMaps(words, np.array(found, dtype=np.float32).reshape(-1, *maps.shape[1:]))
