"""A WordPiece tokenizer of our own, for models that start from nothing."""

from collections.abc import Iterable
from typing import Any

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")  # BLIP's: captions start at [DEC], end at [SEP]


def train_wordpiece(captions: Iterable[str], vocab_size: int = 4000) -> Any:
    """A lower-casing WordPiece (Schuster & Nakajima 2012) over `captions`, as a fast Hugging Face tokenizer.

    Every character seen is in the vocabulary, so new words fall into pieces instead of [UNK].
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece
    from tokenizers.trainers import WordPieceTrainer
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(WordPiece(unk_token="[UNK]"))  # pyright: ignore[reportCallIssue]
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")
    letters = [chr(code) for code in range(0x20, 0x7F)]
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=letters, show_progress=False
    )
    core.train_from_iterator(captions, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="[DEC]",
        eos_token="[SEP]",
        clean_up_tokenization_spaces=False,
    )


def emoji_names() -> list[str]:
    """English names of all emoji in the `emoji` package: a general vocabulary, so that no niche word is unknown."""
    from emoji import EMOJI_DATA

    return [str(entry["en"]).strip(":").replace("_", " ") for entry in EMOJI_DATA.values()]
