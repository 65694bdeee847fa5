"""What a fine-tuning reads, so small that it takes a second: a base bundle, shards, and the pictures behind them."""

from pathlib import Path
from typing import Any

from tests.tiny import picture_bytes, tiny_bundle
from vlm_assets.data.tables import PICTURES, RAW_ROWS, SHARD, PackWriter, write_json, write_rows
from vlm_assets.training.finetune import Inputs
from vlm_serving.bundle import open_bundle
from vlm_serving.captioner import Captioner

WORDS = ["a red square", "a blue circle", "a green dress", "a woman scientist", "a dress", "a circle", "sleeves"]
ATTRIBUTION = {"title": "Blocks", "text": "Drawn by a test.", "licence": "CC0 1.0", "url": "https://example.org"}

BASE = {"title": "Tiny", "text": "Random numbers.", "licence": "CC BY-SA 4.0", "url": ""}


def tiny_inputs(root: Path) -> Inputs:
    """24 training and 8 validation pictures, one caption each."""
    base, shards, raw = (root / name for name in ("base", "shards", "raw"))
    for folder in (shards, raw):
        folder.mkdir(parents=True)
    captioner = Captioner(open_bundle(tiny_bundle(base / "bundle")), threads=1)
    write_json(base / "base.json", {"name": "tiny", "description": "Tiny: random weights.", "attribution": BASE})
    contract = captioner.bundle.contract
    write_json(shards / "contract.json", contract.to_json())
    write_json(shards / "summary.json", {"tokens": {"truncated_captions": 3}})
    write_json(raw / "summary.json", {"attribution": ATTRIBUTION})
    rows: list[dict[str, Any]] = []
    with PackWriter(raw, "pictures", PICTURES) as pictures:
        for split, numbers in (("train", range(24)), ("val", range(24, 32))):
            with PackWriter(shards, split, SHARD) as writer:
                for number in numbers:
                    text, name = WORDS[number % 7], f"{number:016x}"
                    ids = captioner.tokenizer.encode(text, add_special_tokens=False)
                    image = {"bytes": picture_bytes(number, (32, 32)), "path": f"{number}.png"}
                    ids = [contract.bos_token_id, *ids, contract.eos_token_id]
                    row = {"image_id": name, "image": image, "captions": [text], "input_ids": [ids], "slots": "[]"}
                    writer.add({**row})
                    pictures.add({"sha256": name * 4, "image": image})
                    rows.append({"image_id": name, "sha256": name * 4, "captions": [text]})
    write_rows(raw / "rows.parquet", RAW_ROWS, rows)
    return Inputs(base, shards, raw)
