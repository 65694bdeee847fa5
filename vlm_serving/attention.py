"""Where the model looked while it said a word: cross-attention as a map over the picture.

Attention is not an explanation: other weights can give the same words (Jain and Wallace 2019, "Attention is not
Explanation", NAACL), and what a patch holds has been mixed with all others by the vision encoder. A map says which
parts the decoder read from, no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlm_serving.captioner import Captioner, tidy
from vlm_serving.words import visible_pieces, word_numbers


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
    """Maps for pictures, uint8 (B, 3, H, W), and what was said of them (`Caption.token_ids`), in one forward pass.

    The mean over all heads of the decoder's last layer, at the places that the word's pieces were read off.
    """
    contract = captioner.bundle.contract
    start = [contract.bos_token_id, *captioner.prompt_ids]
    longest = max(len(ids) for ids in captions)
    rows = [[*start, *ids, *[contract.pad_token_id] * (longest - len(ids))][:-1] for ids in captions]
    states = captioner.encode(torch.from_numpy(pixels))
    read = captioner.decoder.looked(states, torch.tensor(rows, device=captioner.device))  # (B, heads, L, T)
    weights = read.float().mean(dim=1).cpu().numpy()  # (B, L, 1 + G * G)
    side = round((weights.shape[2] - 1) ** 0.5)
    # the place before a token is where it was predicted; the first patch is the class token
    read = weights[:, len(start) - 1 :, 1:].reshape(len(rows), longest, side, side)
    return [_of_words(captioner.tokenizer, ids, maps) for ids, maps in zip(captions, read, strict=True)]


def _of_words(tokenizer: Any, token_ids: Sequence[int], maps: NDArray[np.float32]) -> WordMaps:
    """The mean of its pieces' maps for each word. `maps`: (L, G, G), one per token."""
    text = tidy(tokenizer.decode(list(token_ids), skip_special_tokens=True))
    numbers = np.array([-1 if n is None else n for n in word_numbers(text, visible_pieces(tokenizer, token_ids))])
    words = tuple(text.split())
    found = [maps[: len(numbers)][numbers == number].mean(axis=0) for number in range(len(words))]
    return WordMaps(words, np.array(found, dtype=np.float32).reshape(-1, *maps.shape[1:]))
