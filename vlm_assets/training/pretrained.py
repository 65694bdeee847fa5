"""A BLIP that is pretrained already: a pinned revision from the hub, or a local directory; kept as a bundle of ours."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from vlm_assets.data.sources.base import Attribution
from vlm_assets.errors import ConfigError
from vlm_assets.training.card import base_card
from vlm_assets.training.config import HubModel, LocalModel
from vlm_assets.training.licences import attribution_of_model
from vlm_serving.preprocessing import PreprocessingContract
from vlm_serving.resizing import default_resizer

Log = Callable[[str], object]
BICUBIC = 3  # Pillow's number, and the default of BLIP's image processor
RESAMPLERS_BY_NUMBER = {2: "bilinear", BICUBIC: "bicubic"}


def write_pretrained(out: Path, start: HubModel | LocalModel, lineage: Mapping[str, Any], log: Log) -> dict[str, Any]:
    """Take a pretrained BLIP as it is. Pickled weights are read by torch's restricted loader, kept as safetensors."""
    from transformers import AutoTokenizer

    from vlm_assets.training.bundling import Parts, golden_patterns, write_bundle

    name, place, options = _place(start)
    log(f"loading {name}")
    model = _load(place, options, name)
    tokenizer: Any = AutoTokenizer.from_pretrained(place, **options)
    text: Any = model.config.text_config
    _name_start_token(tokenizer, int(text.bos_token_id), int(text.vocab_size), name)
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
        **_normalisation(place, options, name),
    )
    summary = {
        "name": name,
        "description": f"{name}, {model.num_parameters() / 1e6:.0f} M parameters.",
        "parameters": model.num_parameters(),
        "attribution": asdict(_attribution(start, name)),
    }
    card = base_card(summary, contract, lineage)
    write_bundle(out / "bundle", Parts(model, tokenizer, contract, golden_patterns(), [], card, lineage))
    return summary


def _name_start_token(tokenizer: Any, bos_token_id: int, vocab_size: int, name: str) -> None:
    """Give the token that captions start from a name, and an end to the vocabulary, where the tokenizer lacks them.

    The hub's BLIP comes with BERT's tokenizer as it is, 30,522 pieces, while the model was trained with two more:
    [DEC], from which it starts, and [ENC] (github.com/salesforce/BLIP, models/blip.py, `init_tokenizer`).
    """
    if bos_token_id < len(tokenizer):
        return
    if bos_token_id > len(tokenizer):
        raise ConfigError(
            f"base_model: {name} starts captions from token {bos_token_id}, its tokenizer ends at "
            f"{len(tokenizer) - 1}: they are not of the same model. Give a directory with the tokenizer that it was "
            "trained with."
        )
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    if len(tokenizer) < vocab_size:
        tokenizer.add_special_tokens({"extra_special_tokens": ["[ENC]"]})


def _place(start: HubModel | LocalModel) -> tuple[str, str, dict[str, Any]]:
    if isinstance(start, HubModel):
        return f"{start.repo}@{start.revision[:12]}", start.repo, {"revision": start.revision}
    path = model_directory(start)
    return path.name, str(path), {}


def model_directory(start: LocalModel) -> Path:
    """The directory of a local model; ConfigError if none is there."""
    path = Path(start.path).expanduser()
    if not (path / "config.json").is_file():
        raise ConfigError(
            f"base_model: there is no config.json in {path}. Give a directory written by save_pretrained."
        )
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt")):  # transformers would make one up
        raise ConfigError(
            f"base_model: there is no tokenizer in {path} (tokenizer.json or vocab.txt). Save it beside the model."
        )
    return path


def _load(place: str, options: Mapping[str, Any], name: str) -> Any:
    import torch
    from transformers import BlipForConditionalGeneration
    from transformers.utils import logging as transformers_logging

    from vlm_serving.model import use_fused_attention

    transformers_logging.disable_progress_bar()
    try:
        model = BlipForConditionalGeneration.from_pretrained(place, dtype=torch.float32, weights_only=True, **options)
    except (OSError, UnpicklingError) as error:
        raise ConfigError(
            f"base_model: {name} cannot be loaded: {str(error).splitlines()[0]} Check the name and the network, "
            "or use a local copy (start: {directory: {path: …}}), or the embedded blip_mini."
        ) from error
    return use_fused_attention(model)


def _normalisation(place: str, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Mean, standard deviation and resampling as the model's own image processor has them; BLIP's where it has none."""
    from transformers import BlipImageProcessorPil

    try:
        settings, _ = BlipImageProcessorPil.get_image_processor_dict(place, **options)
    except OSError:
        return {}
    found: dict[str, Any] = {
        ours: tuple(settings[theirs])
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std"))
        if settings.get(theirs)
    }
    resample = settings.get("resample", BICUBIC)
    if resample not in RESAMPLERS_BY_NUMBER:
        raise ConfigError(
            f"base_model: the image processor of {name} resamples by Pillow's method {resample}; this project knows "
            f"{', '.join(f'{number} ({method})' for number, method in RESAMPLERS_BY_NUMBER.items())}. Set it to one "
            "of them in preprocessor_config.json."
        )
    return {**found, "resample": RESAMPLERS_BY_NUMBER[resample]}


def _attribution(start: HubModel | LocalModel, name: str) -> Attribution:
    """What the pretrained model's card says of its licence."""
    if isinstance(start, LocalModel):
        card = model_directory(start) / "README.md"
        return attribution_of_model(name, card.read_text(encoding="utf-8") if card.is_file() else "", "")
    from huggingface_hub import hf_hub_download

    url = f"https://huggingface.co/{start.repo}/tree/{start.revision}"
    try:
        card = Path(hf_hub_download(start.repo, "README.md", revision=start.revision))
    except OSError:  # a model without a card, or one whose other files are in the cache and the network is away
        return attribution_of_model(name, "", url)
    return attribution_of_model(name, card.read_text(encoding="utf-8"), url)
