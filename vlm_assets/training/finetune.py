"""Base model + shards -> candidate bundle. Pure: directories in, directory out."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlm_assets.training.candidate_card import candidate_card
from vlm_assets.training.card import Asked
from vlm_assets.training.config import FinetuneConfig
from vlm_assets.training.pictures import raw_pictures, split_ids
from vlm_assets.training.vocabulary import taught_words

REFERENCE_PICTURES = 2000  # more add little to a drift test that subsamples to 500
Log = Callable[[str], object]
Metric = Callable[[str, float, int], object]
SUMMARY = "training.json"
CURVES = "curves.png"


@dataclass(frozen=True)
class Inputs:
    """Local directories of the artifacts that a candidate is made of."""

    base: Path
    shards: Path
    raw: Path


def write_candidate(
    out: Path, inputs: Inputs, config: FinetuneConfig, lineage: Mapping[str, Any], scratch: Path, log: Log,
    metric: Metric,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tune the base bundle on the shards and write `bundle/`, `training.json`, `curves.png` into `out`.

    Returns the summary. Raises TrainingError when the shards were made for another base model.
    """
    model, summary = fit(inputs, config, scratch, log, metric)
    return seal_candidate(out, inputs, config, lineage, model, summary)


def fit(
    inputs: Inputs,
    config: FinetuneConfig,
    scratch: Path,
    log: Log,
    metric: Metric | None,
    callbacks: Sequence[Any] = (),
) -> tuple[Any, dict[str, Any]]:
    """The trained BLIP and the summary of its training. Each worker of a distributed training calls this."""
    from transformers import AutoTokenizer

    from vlm_assets.training.pairs import read_material
    from vlm_assets.training.preflight import check_training
    from vlm_assets.training.trainer import train
    from vlm_assets.training.validation import CaptionValidator, read_validation
    from vlm_serving.bundle import open_bundle
    from vlm_serving.model import load_model

    start, shards = open_bundle(inputs.base / "bundle"), inputs.shards
    model = load_model(start.path)
    tokenizer: Any = AutoTokenizer.from_pretrained(start.path)
    prompt_ids: list[int] = tokenizer.encode(config.prompt, add_special_tokens=False)
    as_served = replace(start, prompt=config.prompt, generation=config.generation())
    material = read_material(inputs.base, shards, config, start.contract, prompt_ids)
    found = contract_faults(start.contract.to_json(), json.loads((shards / "contract.json").read_text()))
    check_training(model, material.pairs, material.validation, config.settings(), len(prompt_ids), found)
    pictures_to_judge = read_validation(sorted(shards.glob("val-*.parquet")), config.validation_pictures)
    judge = CaptionValidator(as_served, pictures_to_judge) if pictures_to_judge else None
    result = train(
        model, material.pairs, material.validation, start.contract, config.settings(), scratch, log, metric,
        validator=judge, prompt_tokens=len(prompt_ids), tokenizer=tokenizer, callbacks=callbacks,
    )  # fmt: skip
    scores = judge.estimates(model) if judge and len(pictures_to_judge) > 1 else {}
    counts = {
        "pairs": material.niche,
        "replay_pairs": material.replay,
        "parameters": model.num_parameters(),
        "truncated_captions": json.loads((shards / "summary.json").read_text())["tokens"]["truncated_captions"],
    }
    return model, {**asdict(result), **counts, "validation": scores}


def seal_candidate(
    out: Path, inputs: Inputs, config: FinetuneConfig, lineage: Mapping[str, Any], model: Any, summary: dict[str, Any]
) -> dict[str, Any]:
    """Write the trained model as a bundle with golden vectors, drift reference and card; returns the summary."""
    from transformers import AutoTokenizer

    from vlm_assets.training.bundling import Parts, write_bundle
    from vlm_serving.bundle import open_bundle

    start = open_bundle(inputs.base / "bundle", verify=False)
    val_ids = split_ids(sorted(inputs.shards.glob("val-*.parquet")), REFERENCE_PICTURES)
    ids = val_ids or split_ids(sorted(inputs.shards.glob("train-*.parquet")), config.golden_pictures)
    pictures = raw_pictures(inputs.raw, ids)
    asked = Asked(start.contract, config.prompt, config.generation())
    card = candidate_card(inputs.raw, inputs.base, summary, lineage, asked)
    golden = [data for _, data in pictures[: config.golden_pictures]]
    tokenizer: Any = AutoTokenizer.from_pretrained(start.path)
    taught = taught_words([*inputs.shards.glob("train-*.parquet"), *(inputs.base / "general").glob("train-*.parquet")])
    parts = Parts(
        model, tokenizer, start.contract, golden, pictures, card, lineage, asked.prompt, asked.generation, taught
    )  # fmt: skip
    bundle = write_bundle(out / "bundle", parts)
    summary["bundle_version"] = bundle.version
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")
    plot_curves(summary, out / CURVES)
    return summary


def contract_faults(model: Mapping[str, Any], shards: Mapping[str, Any]) -> list[str]:
    """The shards must hold what this base model reads; names every setting that differs."""
    if model["sha256"] == shards.get("sha256"):
        return []
    base: dict[str, Any] = json.loads(json.dumps(model))  # tuples as lists, like those of the shards
    differing = [f"{key}: {shards.get(key)!r} in the shards, {value!r} in the base" for key, value in base.items()
                 if key != "sha256" and shards.get(key) != value]  # fmt: skip
    return [
        f"The shards were made for another base model ({'; '.join(differing)}). Materialize tokenized_shards again."
    ]


def plot_curves(summary: Mapping[str, Any], path: Path) -> None:
    """Training and validation loss and validation CIDEr over steps, as a small PNG; a line marks the step kept."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = bool(summary["val_cider"])
    figure = Figure(figsize=(9.6 if judged else 6.4, 3.0), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Any] = list(figure.subplots(1, 1 + judged, squeeze=False)[0])
    axes = panels[0]
    for name, label, style in (("train_loss", "train", "-"), ("val_loss", "validation", "o-")):
        if summary[name]:
            axes.plot(*zip(*summary[name], strict=True), style, label=label, markersize=4)
    axes.set_ylabel("loss per token (label smoothing included)")
    axes.legend(frameon=False)
    if judged:
        panels[1].plot(*zip(*summary["val_cider"], strict=True), "o-", color="C2", markersize=4)
        panels[1].axvline(summary["kept_step"], color="grey", linestyle=":", label=f"kept: step {summary['kept_step']}")
        panels[1].set_ylabel("validation CIDEr (0 to 10)")
        panels[1].set_ylim(bottom=0)
        panels[1].legend(frameon=False)
    for panel in panels:
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
