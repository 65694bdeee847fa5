"""Who is compared with whom: the candidate, its own base, the champion so far, and two baselines without a model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm_assets.errors import ConfigError
from vlm_assets.evaluation.baselines import (
    Nearest,
    most_frequent_caption,
    nearest_training_pictures,
    with_captions,
)
from vlm_assets.evaluation.originals import Originals
from vlm_assets.evaluation.pictures import PictureBatch, Texts, split_files, split_names
from vlm_assets.evaluation.predict import CaptionTable, caption_split
from vlm_serving.generation import DEFAULT_OPTIONS, GenerationOptions

if TYPE_CHECKING:  # both modules of the captioner import torch
    from vlm_assets.evaluation.config import EvalConfig, MeasureConfig
    from vlm_serving.bundle import Bundle
    from vlm_serving.captioner import Captioner
    from vlm_serving.preprocessing import PreprocessingContract

Log = Callable[[str], None]

HEADLINE_SPLIT = "test"
TRAIN_SPLIT = "train"
GENERAL = "general"  # in the base's artifact: pictures like those that it was pretrained on
GENERAL_SPLIT = "general/test"
CANDIDATE, CHAMPION, BASE, COPY, MOST_FREQUENT = "candidate", "champion", "base", "copy", "most_frequent"
LABELS = {
    CANDIDATE: "Fine-tuned",
    CHAMPION: "Champion so far",
    BASE: "Base, zero-shot",
    COPY: "Copy of the nearest",
    MOST_FREQUENT: "Most frequent caption",
}
IN_A_SENTENCE = {
    CANDIDATE: "the fine-tuned model",
    CHAMPION: "the champion so far",
    BASE: "the base before fine-tuning",
    COPY: "copying the caption of the nearest training picture",
    MOST_FREQUENT: "always saying the commonest training caption",
}


@dataclass(frozen=True)
class System:
    """One captioner and all it said: by split, a table of `predict.CAPTION_SCHEMA`. `generation`: how it was asked.

    `trained_on` are image_ids of pictures that it has seen: a champion of an older split may have trained on what is
    test now, and is compared without those.
    """

    key: str
    about: str
    version: str = ""
    generation: GenerationOptions = DEFAULT_OPTIONS
    captions: dict[str, CaptionTable] = field(default_factory=dict[str, CaptionTable])
    trained_on: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Models:
    """The artifact directories of the models to compare; each has a `bundle/`. No champion before the first release.

    `originals` are the pictures before they were made into shards, where the store has them. `champion_trained_on` are
    the image_ids that trained the champion; None where the store does not know.
    """

    candidate: Path
    base: Path
    champion: Path | None = None
    originals: Originals | None = None
    champion_trained_on: frozenset[str] | None = frozenset()


def base_facts(base: Path) -> dict[str, str]:
    """Name and description of the base model: no number may stand without saying which model made it."""
    facts: dict[str, str] = json.loads((base / "base.json").read_text())
    return {"name": facts["name"], "description": facts["description"]}


def wanted_splits(shards: Path, patterns: Sequence[str]) -> list[str]:
    """The splits that match, the headline first, then by name. ConfigError without a `test` split."""
    names = split_names(shards)
    if HEADLINE_SPLIT not in names:
        raise ConfigError(
            f"The shards have no split {HEADLINE_SPLIT!r}, only {', '.join(names) or 'none'}. "
            "Give validated_splits a larger share for it."
        )
    matching = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return [HEADLINE_SPLIT, *(name for name in matching if name not in (HEADLINE_SPLIT, TRAIN_SPLIT))]


def is_test(split: str) -> bool:
    """Whether a split is the headline or one of the hard ones, `test_<what is held out>`."""
    return split == HEADLINE_SPLIT or split.startswith(f"{HEADLINE_SPLIT}_")


def caption_models(shards: Path, models: Models, config: EvalConfig, log: Log) -> list[System]:
    """Candidate on every wanted split, champion and base on the headline; candidate and base on `general/test`.

    Candidate and champion caption as their bundles say, which is how they serve; the base as the candidate does, so
    that the difference is training's alone. Where the base brings no general pictures (a model from the hub), nothing
    is said about forgetting.
    """
    splits = {name: split_files(shards, name) for name in wanted_splits(shards, config.splits)}
    headline = {HEADLINE_SPLIT: splits[HEADLINE_SPLIT]}
    forgetting = {GENERAL_SPLIT: files} if (files := split_files(models.base / GENERAL, "test")) else {}
    candidate, base = _open(models.candidate), _open(models.base)
    _require_same_pixels(candidate, base)
    base = replace(base, generation=candidate.generation)
    name = base_facts(models.base)["name"]
    systems = [_caption(CANDIDATE, f"{name}, fine-tuned", candidate, {**splits, **forgetting}, config, log)]
    if models.champion is not None:
        champion = _champion(_open(models.champion), candidate, models.originals, headline, config, log)
        systems.append(_with_past(champion, models.champion_trained_on, log))
    systems.append(_caption(BASE, f"{name}, as it was", base, {**headline, **forgetting}, config, log))
    return systems


def nearest_pictures(shards: Path, candidate: System, log: Log, limit: int = 0) -> dict[str, Nearest]:
    """The nearest training pictures, for the headline and the hard splits that the candidate captioned."""
    files = {name: split_files(shards, name) for name in candidate.captions if is_test(name)}
    return nearest_training_pictures(files, split_files(shards, TRAIN_SPLIT), log, limit=limit)


def baseline_systems(candidate: System, training: Texts, near: Mapping[str, Nearest]) -> list[System]:
    """Both baselines on the splits for which the nearest training pictures were looked up."""
    tables = {name: candidate.captions[name] for name in near}
    commonest = most_frequent_caption(text for texts in training.captions for text in texts)
    constant = {name: with_captions(table, [commonest] * table.num_rows) for name, table in tables.items()}
    copied = {
        name: with_captions(table, [training.captions[int(row)][0] for row in near[name].rows])
        for name, table in tables.items()
    }
    return [
        System(COPY, "caption of the most similar training picture, no model", captions=copied),
        System(MOST_FREQUENT, "the same words for every picture, no model", captions=constant),
    ]


def golden_facts(model: Path) -> dict[str, Any]:
    """How many golden pictures of the bundle came out as recorded, or in `problem` what differs."""
    from vlm_serving.captioner import Captioner
    from vlm_serving.errors import BundleError

    try:
        return {"pictures": Captioner(_open(model)).check_golden(), "problem": ""}
    except BundleError as error:
        return {"pictures": 0, "problem": str(error)}


def open_captioner(model: Path | Bundle, config: MeasureConfig) -> Captioner:
    """The captioner of a model's directory or bundle."""
    from vlm_serving.captioner import Captioner

    bundle = _open(model) if isinstance(model, Path) else model
    return Captioner(bundle, threads=config.threads or len(os.sched_getaffinity(0)))


def _open(model: Path) -> Bundle:
    from vlm_serving.bundle import open_bundle

    return open_bundle(model / "bundle")


def _caption(
    key: str, about: str, bundle: Bundle, splits: Mapping[str, list[Path]], config: EvalConfig, log: Log,
    view: Callable[[PictureBatch], NDArray[np.uint8]] | None = None,
) -> System:  # fmt: skip
    """Load the model, caption, forget the model: never two in memory."""
    captioner = open_captioner(bundle, config)
    captions = {
        name: caption_split(
            captioner,
            files,
            config.batch_size,
            log,
            label=f"{key} on {name}",
            limit=config.max_pictures,
            view=view,
        )
        for name, files in splits.items()
    }
    return System(key, about, bundle.version, bundle.generation, captions)


def _champion(
    champion: Bundle, candidate: Bundle, originals: Originals | None, splits: Mapping[str, list[Path]],
    config: EvalConfig, log: Log,
) -> System:  # fmt: skip
    """The champion, always scored anew on this very split: in pictures of its own size, if that is another one."""
    about = "released before"
    if champion.generation != candidate.generation:
        about += f", {champion.generation}"
    if same_pixels(champion.contract, candidate.contract):
        return _caption(CHAMPION, about, champion, splits, config, log)
    contract = champion.contract
    if originals is None:
        log("The champion takes other pixels than these shards hold, and the originals are not here: not compared.")
        return System(CHAMPION, f"not compared: it takes {contract.image_size_px} px pictures", champion.version)
    log(f"The champion takes {contract.image_size_px} px pictures: scored on the same ones, from their originals.")
    about += f"; on the same pictures at {contract.image_size_px} px"
    return _caption(CHAMPION, about, champion, splits, config, log, originals.view(contract))


def _with_past(champion: System, trained_on: frozenset[str] | None, log: Log) -> System:
    """The champion with what is known of the pictures that trained it."""
    if trained_on is not None or not champion.captions:
        return replace(champion, trained_on=trained_on or frozenset())
    log("The store has no splits of the champion: it may have been trained on some of these pictures.")
    return replace(champion, about=f"{champion.about}; whether it was trained on some of these pictures is not known")


def same_pixels(a: PreprocessingContract, b: PreprocessingContract) -> bool:
    """Whether both see the same uint8 pixels of a picture; how they are normalised is the models' own business."""
    return (a.image_size_px, a.resample) == (b.image_size_px, b.resample)


def _require_same_pixels(candidate: Bundle, base: Bundle) -> None:
    if not same_pixels(candidate.contract, base.contract):
        raise ConfigError(
            f"The fine-tuned model takes {candidate.contract.image_size_px} px pictures "
            f"({candidate.contract.resample}), its base {base.contract.image_size_px} px ({base.contract.resample}). "
            "Materialize finetuned_model again from this base_model."
        )
