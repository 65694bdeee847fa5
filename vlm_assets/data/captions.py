"""Captions to token ids, exactly as the model is trained and decoded, and what tokenizing met on the way."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_assets.errors import SourceError
from vlm_serving.preprocessing import PreprocessingContract

TOKENIZER = "tokenizer.json"


@dataclass
class TokenCounts:
    """What tokenizing met."""

    captions: int = 0
    tokens: int = 0
    unknown: int = 0
    truncated: int = 0
    lengths: Counter[int] = field(default_factory=Counter[int])  # with BOS and EOS

    def to_json(self) -> dict[str, Any]:
        """The counts with the shares that a reader wants."""
        return {
            "captions": self.captions,
            "word_pieces": self.tokens,
            "unknown_word_pieces": self.unknown,
            "unknown_share": self.unknown / max(self.tokens, 1),
            "truncated_captions": self.truncated,
            "captions_by_length": {str(length): self.lengths[length] for length in sorted(self.lengths)},
        }

    def add(self, counts: Mapping[str, Any]) -> None:
        """Add what `to_json` of another gave."""
        self.captions += counts["captions"]
        self.tokens += counts["word_pieces"]
        self.unknown += counts["unknown_word_pieces"]
        self.truncated += counts["truncated_captions"]
        self.lengths.update({int(length): count for length, count in counts["captions_by_length"].items()})


class CaptionTokenizer:
    """BOS, word pieces, EOS. Takes the text of a `tokenizer.json`, so that a worker needs no files and no torch."""

    def __init__(self, tokenizer_json: str, contract: PreprocessingContract) -> None:
        from tokenizers import Tokenizer

        self.counts = TokenCounts()
        self._tokenizer: Any = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._unknown: int | None = self._tokenizer.token_to_id(getattr(self._tokenizer.model, "unk_token", None) or "")
        self._contract = contract

    def encode(self, caption: str) -> list[int]:
        """[BOS] + word pieces + [EOS], at most `max_caption_tokens` in all."""
        pieces: list[int] = self._tokenizer.encode(caption, add_special_tokens=False).ids
        room = self._contract.max_caption_tokens - 2
        counts = self.counts
        counts.captions += 1
        counts.tokens += len(pieces)
        counts.unknown += 0 if self._unknown is None else pieces.count(self._unknown)
        counts.truncated += len(pieces) > room
        ids = [self._contract.bos_token_id, *pieces[:room], self._contract.eos_token_id]
        counts.lengths[len(ids)] += 1
        return ids

    def pieces(self, ids: list[int]) -> str:
        """The word pieces behind the ids, with spaces between."""
        return " ".join(self._tokenizer.id_to_token(token) for token in ids)


def read_tokenizer(bundle: Path, contract: PreprocessingContract) -> str:
    """The text of the bundle's `tokenizer.json`. SourceError if it is missing or not the one of the contract."""
    path = bundle / TOKENIZER
    if not path.is_file():
        raise SourceError(
            f"The base model in {bundle} has no {TOKENIZER}; only its fast tokenizer can be used. "
            "Save it with transformers' save_pretrained, and materialize base_model again."
        )
    text = path.read_text(encoding="utf-8")
    found = hashlib.sha256(text.encode()).hexdigest()
    if contract.tokenizer_sha256 and found != contract.tokenizer_sha256:
        raise SourceError(
            f"The vocabulary in {path} is not the one of the preprocessing contract: its sha256 begins with "
            f"{found[:12]}, the contract says {contract.tokenizer_sha256[:12]}. Materialize base_model again."
        )
    _check_special_tokens(text, contract, path)
    return text


def _check_special_tokens(text: str, contract: PreprocessingContract, path: Path) -> None:
    from tokenizers import Tokenizer

    try:
        size = Tokenizer.from_str(text).get_vocab_size(with_added_tokens=True)
    except Exception as error:  # the Rust library raises a bare Exception
        raise SourceError(f"{path} is not a tokenizer: {error}. Materialize base_model again.") from error
    outside = {name: getattr(contract, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    outside = {name: value for name, value in outside.items() if not 0 <= value < size}
    if outside:
        raise SourceError(
            f"The preprocessing contract has {outside}, but the vocabulary in {path} ends at {size - 1}: they are not "
            "of the same model. Materialize base_model again."
        )
