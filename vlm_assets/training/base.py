"""Where a model starts: a small BLIP pretrained here, or one that is pretrained already (pretrained.py)."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vlm_assets.data.sources.openmoji import ATTRIBUTION, OpenMojiSource
from vlm_assets.data.tables import write_json
from vlm_assets.training.card import base_card
from vlm_assets.training.config import BlipMini, HubModel, LocalModel
from vlm_assets.training.pretrained import model_directory, write_pretrained
from vlm_serving.preprocessing import PreprocessingContract
from vlm_serving.resizing import default_resizer

Log = Callable[[str], object]
Metric = Callable[[str, float, int], object]
SUMMARY = "base.json"


def write_base(
    out: Path,
    start: BlipMini | HubModel | LocalModel,
    lineage: Mapping[str, Any],
    scratch: Path,
    log: Log,
    metric: Metric,
) -> dict[str, Any]:
    """Write `bundle/`, `base.json` and, for blip-mini, the general pictures it knows (`general/`) into `out`."""
    if isinstance(start, BlipMini):
        return write_mini(out, start, lineage, scratch, log, metric)
    summary = write_pretrained(out, start, lineage, log)
    write_json(out / SUMMARY, summary)
    return summary


def base_inputs(start: BlipMini | HubModel | LocalModel) -> dict[str, str]:
    """Fingerprints of what lies outside the configuration: this machine's resizer, and the drawings or local files."""
    return {"resizer": default_resizer(), **_content(start)}


def _content(start: BlipMini | HubModel | LocalModel) -> dict[str, str]:
    if isinstance(start, BlipMini):
        return {
            "niche": OpenMojiSource("roles").fingerprint(),
            "general": OpenMojiSource("general_people").fingerprint(),
        }
    if isinstance(start, LocalModel):
        from vlm_serving.bundle import sha256_of

        path = model_directory(start)
        files = (file for file in sorted(path.iterdir()) if file.suffix in (".json", ".safetensors", ".bin", ".txt"))
        return {file.name: sha256_of(file) for file in files}
    return {}


def write_mini(
    out: Path, start: BlipMini, lineage: Mapping[str, Any], scratch: Path, log: Log, metric: Metric
) -> dict[str, Any]:
    """Pretrain blip-mini on OpenMoji's people outside their roles."""
    from vlm_assets.training.batches import read_examples
    from vlm_assets.training.bundling import Parts, write_bundle, write_model
    from vlm_assets.training.general import import_general, write_general
    from vlm_assets.training.pictures import raw_pictures, split_ids
    from vlm_assets.training.tokenizer import emoji_names, train_wordpiece
    from vlm_assets.training.trainer import train
    from vlm_serving.model import build_mini

    raw, splits, untrained = (_fresh(scratch / name) for name in ("raw", "splits", "untrained"))
    captions = import_general(raw, splits, log)
    tokenizer = train_wordpiece([*emoji_names(), *captions], start.vocab_size)
    ids: dict[str, Any] = {
        name: int(getattr(tokenizer, name)) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    shape = start.model_dump(exclude={"kind", "vocab_size", "pretrain"})
    model = build_mini(vocab_size=len(tokenizer), seed=start.pretrain.seed, **shape, **ids)
    contract = PreprocessingContract(image_size_px=start.image_size_px, resizer=default_resizer(), **ids)
    contract = write_model(untrained, model, tokenizer, contract)
    write_general(splits, raw, untrained, out / "general", log)
    examples = read_examples(sorted((out / "general").glob("train-*.parquet")))
    held_out = sorted((out / "general").glob("test-*.parquet"))
    settings = start.pretrain.settings()
    result = train(model, examples, read_examples(held_out), contract, settings, scratch, log, metric)
    description = (
        f"blip-mini: {model.num_parameters() / 1e6:.1f} M parameters, pretrained from nothing on "
        f"{len(examples):,} picture-caption pairs of OpenMoji people outside their roles, {result.steps:,} steps. "
        "This is icon art."
    )
    summary = {
        "name": "blip-mini",
        "description": description,
        "parameters": model.num_parameters(),
        "attribution": asdict(ATTRIBUTION),
        **asdict(result),
    }
    card = base_card(summary, contract, lineage)
    golden = [data for _, data in raw_pictures(raw, split_ids(held_out, 2))]
    write_bundle(out / "bundle", Parts(model, tokenizer, contract, golden, [], card, lineage))
    write_json(out / SUMMARY, summary)
    return summary


def _fresh(path: Path) -> Path:
    """An empty directory: what a killed run left in it is not trusted."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
