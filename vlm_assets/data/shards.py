"""From clean splits to model-ready shards: pictures at the model's size, captions as token ids."""

import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_assets.data.tables import SHARD, PackWriter, Row, read_json, read_rows, stream_pictures, write_json
from vlm_assets.errors import SourceError
from vlm_assets.progress import Progress
from vlm_serving.images import decode_picture
from vlm_serving.preprocessing import PreprocessingContract, model_pixels

CONTRACT = "contract.json"


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


class CaptionTokenizer:
    """Captions to token ids as the model is trained and decoded: BOS, word pieces, EOS."""

    def __init__(self, bundle: Path, contract: PreprocessingContract) -> None:
        from transformers import AutoTokenizer

        self.counts = TokenCounts()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(bundle)
        self._contract = contract

    def encode(self, caption: str) -> list[int]:
        """[BOS] + word pieces + [EOS], at most `max_caption_tokens` in all."""
        pieces: list[int] = self._tokenizer(caption, add_special_tokens=False)["input_ids"]
        room = self._contract.max_caption_tokens - 2
        counts = self.counts
        counts.captions += 1
        counts.tokens += len(pieces)
        counts.unknown += pieces.count(self._tokenizer.unk_token_id)
        counts.truncated += len(pieces) > room
        ids = [self._contract.bos_token_id, *pieces[:room], self._contract.eos_token_id]
        counts.lengths[len(ids)] += 1
        return ids


def write_shards(
    splits: Path, raw: Path, bundle: Path, directory: Path, log: Callable[[str], object]
) -> dict[str, int]:
    """Write the shards of every split and the preprocessing contract that made them; returns pictures per split.

    `splits`, `raw` and `bundle` are directories of validated_splits, raw_dataset and a servable model. Pictures come in
    the order of the snapshot and stream.
    """
    contract = PreprocessingContract.from_json(read_json(bundle / CONTRACT))
    tokenizer = CaptionTokenizer(bundle, contract)
    rows = {row["sha256"]: row for row in read_rows(splits / "rows.parquet")}
    names = sorted({row["split"] for row in rows.values()})
    progress = Progress("shards", len(rows), log)
    with ExitStack() as stack:
        writers = {name: stack.enter_context(PackWriter(directory, name, SHARD)) for name in names}
        for sha256, data in stream_pictures(raw):
            row = rows.get(sha256)
            if row is not None:
                writers[row["split"]].add(shard_row(row, data, contract, tokenizer))
                progress.advance()
    progress.done()
    counts = {name: writer.rows for name, writer in writers.items()}
    if sum(counts.values()) != len(rows):
        raise SourceError(
            f"The snapshot holds {sum(counts.values()):,} of the {len(rows):,} pictures of the splits: these splits "
            "were made from another snapshot. Materialize raw_dataset and validated_splits again, together."
        )
    shutil.copyfile(bundle / CONTRACT, directory / CONTRACT)
    attribution = read_json(splits / "summary.json").get("attribution", {})
    summary = _summary(counts, writers.values(), contract, tokenizer.counts)
    write_json(directory / "summary.json", {**summary, "attribution": attribution})
    return counts


def shard_row(row: Row, data: bytes, contract: PreprocessingContract, tokenizer: CaptionTokenizer) -> dict[str, Any]:
    """One picture as a row of a shard."""
    return {
        "image_id": row["image_id"],
        "image": {"bytes": model_png(data, contract), "path": f"{row['image_id']}.png"},
        "captions": row["captions"],
        "input_ids": [tokenizer.encode(caption) for caption in row["captions"]],
        "slots": row["slots"],
    }


def model_png(data: bytes, contract: PreprocessingContract) -> bytes:
    """The picture as the model will see it, before normalisation, as a lossless PNG."""
    pixels = model_pixels(decode_picture(data), contract)  # (3, H, W)
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shard_paths(directory: Path, split: str) -> list[Path]:
    """The files of one split, in order; `test` does not name those of `test_unseen_role`."""
    return sorted(directory.glob(f"{split}-[0-9]*.parquet"))


def sample_texts(directory: Path, bundle: Path, limit: int = 5) -> list[dict[str, str]]:
    """Captions beside their word pieces, from the training shards: what the model reads."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(bundle)
    rows = read_rows(shard_paths(directory, "train")[0], ["captions", "input_ids"])[:limit]
    return [
        {"caption": row["captions"][0], "word pieces": " ".join(tokenizer.convert_ids_to_tokens(row["input_ids"][0]))}
        for row in rows
    ]


def _summary(
    counts: dict[str, int], writers: Iterable[PackWriter], contract: PreprocessingContract, tokens: TokenCounts
) -> dict[str, Any]:
    return {
        "splits": counts,
        "files": sum(writer.packs for writer in writers),
        "image_size_px": contract.image_size_px,
        "contract_sha256": contract.sha256,
        "tokens": tokens.to_json(),
    }
