"""Where a model starts: a small BLIP pretrained here, a pinned revision from the hub, or a local directory."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from vlm_assets.data.sources.openmoji import ATTRIBUTION, OpenMojiSource
from vlm_assets.errors import ConfigError
from vlm_assets.training.config import BlipMini, HubModel, LocalModel
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
    return write_pretrained(out, start, lineage, log)


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

        path = _model_directory(start)
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
    from vlm_serving.preprocessing import PreprocessingContract

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
    summary = {"name": "blip-mini", "description": description, "parameters": model.num_parameters(), **asdict(result)}
    card = _card(summary, f"{ATTRIBUTION.text} {ATTRIBUTION.url}", lineage)
    golden = [data for _, data in raw_pictures(raw, split_ids(held_out, 2))]
    write_bundle(out / "bundle", Parts(model, tokenizer, contract, golden, [], card, lineage))
    return _write_summary(out, summary)


def _fresh(path: Path) -> Path:
    """An empty directory: what a killed run left in it is not trusted."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write_pretrained(out: Path, start: HubModel | LocalModel, lineage: Mapping[str, Any], log: Log) -> dict[str, Any]:
    """Take a pretrained BLIP as it is. Pickled weights are read by torch's restricted loader, kept as safetensors."""
    from transformers import AutoTokenizer

    from vlm_assets.training.bundling import Parts, golden_patterns, write_bundle
    from vlm_serving.preprocessing import PreprocessingContract

    name, place, options = _place(start)
    log(f"loading {name}")
    model = _load(place, options, name)
    tokenizer: Any = AutoTokenizer.from_pretrained(place, **options)
    text: Any = model.config.text_config
    if start.max_caption_tokens > text.max_position_embeddings:
        raise ConfigError(
            f"base_model: max_caption_tokens is {start.max_caption_tokens}, but {name} has places for "
            f"{text.max_position_embeddings} tokens. Set it to {text.max_position_embeddings} or less."
        )
    contract = PreprocessingContract(
        image_size_px=int(model.config.vision_config.image_size),
        bos_token_id=int(text.bos_token_id),
        eos_token_id=int(text.sep_token_id),
        pad_token_id=int(text.pad_token_id),
        max_caption_tokens=start.max_caption_tokens,
        resizer=default_resizer(),
    )
    description = f"{name}, {model.num_parameters() / 1e6:.0f} M parameters."
    summary = {"name": name, "description": description, "parameters": model.num_parameters()}
    card = _card(summary, "See the card of the pretrained model.", lineage)
    write_bundle(out / "bundle", Parts(model, tokenizer, contract, golden_patterns(), [], card, lineage))
    return _write_summary(out, summary)


def _place(start: HubModel | LocalModel) -> tuple[str, str, dict[str, Any]]:
    if isinstance(start, HubModel):
        return f"{start.repo}@{start.revision[:12]}", start.repo, {"revision": start.revision}
    path = _model_directory(start)
    return path.name, str(path), {}


def _model_directory(start: LocalModel) -> Path:
    path = Path(start.path).expanduser()
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"base_model: there is no config.json in {path}. Give a directory written by save_pretrained."
        )
    return path


def _load(place: str, options: Mapping[str, Any], name: str) -> Any:
    import torch
    from transformers import BlipForConditionalGeneration

    from vlm_serving.model import use_fused_attention

    try:
        model = BlipForConditionalGeneration.from_pretrained(place, dtype=torch.float32, weights_only=True, **options)
    except (OSError, UnpicklingError) as error:
        raise ConfigError(
            f"base_model: {name} cannot be loaded: {str(error).splitlines()[0]} Check the name and the network, "
            "or use a local copy (start: {directory: {path: …}}), or the embedded blip_mini."
        ) from error
    return use_fused_attention(model)


def _card(summary: Mapping[str, Any], attribution: str, lineage: Mapping[str, Any]) -> str:
    from vlm_assets.training.card import model_card, versions_shown

    facts = {"parameters": f"{summary['parameters']:,}", **versions_shown(lineage)}
    return model_card(
        title=f"Base model: {summary['name']}",
        summary=summary["description"],
        facts=facts,
        attribution=attribution,
        limits="A starting point for fine-tuning, not a captioner for any niche.",
    )


def _write_summary(out: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    return dict(summary)
