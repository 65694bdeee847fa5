"""A WordPiece tokenizer of our own, for models that start from nothing."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

SPECIAL_TOKENS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[DEC]",
)  # BLIP's: captions start at [DEC], end at [SEP]
LETTERS = tuple(chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper())
WORD = r"\w+(?:['-]\w+)*|[^\w\s]"  # "medium-dark", "t-shirt" and "man's" are words; other punctuation stands alone
WORD_SHARE = 0.8  # of the vocabulary goes to whole words, the rest to pieces of words
PIECE_LENGTHS = range(2, 6)


def wordpiece_vocabulary(captions: Iterable[str], vocab_size: int) -> list[str]:
    """Special tokens, letters, the most frequent words, then the pieces of words that save most letters.

    Equal captions give an equal list, in any order of theirs. (The `tokenizers` trainers break ties by the order of a
    hash table: two runs on one corpus give two vocabularies, and with them two models.)
    """
    words = Counter(word for caption in captions for word in re.findall(WORD, caption.lower()))
    letters = sorted({letter for word in words for letter in word}.union(LETTERS))
    fixed = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    room = max(vocab_size - len(fixed), 0)
    whole = [word for word, _ in _by_weight(words) if len(word) > 1][: int(WORD_SHARE * room)]
    pieces: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for length in PIECE_LENGTHS:
                if start + length <= len(word):
                    piece = ("##" if start else "") + word[start : start + length]
                    pieces[piece] += count * (length - 1)
    known = set(whole)
    rest = [piece for piece, _ in _by_weight(pieces) if piece not in known]
    return [*fixed, *whole, *rest[: room - len(whole)]]


def train_wordpiece(captions: Iterable[str], vocab_size: int = 4000) -> Any:
    """A lower-casing WordPiece (Schuster & Nakajima 2012) over `captions`, as a fast Hugging Face tokenizer.

    Every printable ASCII character is in the vocabulary, so new words fall into pieces instead of [UNK].
    """
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(wordpiece_vocabulary(captions, vocab_size))}
    core = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)  # pyright: ignore[reportAttributeAccessIssue]
    words = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)  # keep what matches
    core.pre_tokenizer = words  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.WordPiece(prefix="##")  # pyright: ignore[reportAttributeAccessIssue]
    core.add_special_tokens(list(SPECIAL_TOKENS))
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


def _by_weight(counter: Counter[str]) -> list[tuple[str, int]]:
    """Heaviest first, ties by spelling."""
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))
