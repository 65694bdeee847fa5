"""The card of a fine-tuned model: what it comes from, what it says of held-out pictures, and where it ends."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlm_assets.training.card import Asked, model_card, versions_shown


def candidate_card(raw: Path, base: Path, summary: Mapping[str, Any], lineage: Mapping[str, Any], asked: Asked) -> str:
    """Markdown. `raw` and `base` are directories of artifacts, `summary` that of the training."""
    source: Mapping[str, str] = json.loads((raw / "summary.json").read_text())["attribution"]
    start: Mapping[str, Any] = json.loads((base / "base.json").read_text())
    facts = {
        "starts from": start["name"],
        "fine-tuned on": f"{summary['pairs']:,} picture-caption pairs, {summary['steps']:,} steps",
        "parameters": f"{summary['parameters']:,}",
        "captions": str(asked.generation),
        **{f"validation {name}": _estimate(found) for name, found in summary["validation"].items()},
        **versions_shown(lineage),
    }
    return model_card(
        title="Captioner",
        summary=f"BLIP fine-tuned on {source.get('title') or 'one set of pictures'}. {start['description']}",
        facts=facts,
        sources={"pictures and captions": source, "base model": start["attribution"]},
        asked=asked,
        limits=list(_limits(source.get("title", ""), summary, asked)),
    )


def _limits(title: str, summary: Mapping[str, Any], asked: Asked) -> Iterator[str]:
    side_px = asked.contract.image_size_px
    yield (
        f"Learnt from {summary['pairs']:,} pairs of {title or 'one source'}. Of other pictures it says something in "
        "the same words; nothing but a lower confidence tells that they do not fit."
    )
    yield (
        f"Sees every picture squashed to {side_px} × {side_px} pixels: fine print, small things and the picture's "
        "proportions are lost."
    )
    cut = summary["truncated_captions"]
    yield (
        f"Says at most {min(asked.generation.max_new_tokens, asked.contract.max_caption_tokens)} tokens. "
        f"{cut:,} captions of the data set were longer than the {asked.contract.max_caption_tokens} that it reads, and "
        "were cut."
    )
    exact = summary["validation"].get("exact_match")
    yield (
        f"Of {exact['n']:,} validation pictures {100 * (1 - exact['value']):.0f} % got a caption that is not word for "
        "word one of theirs. The checkpoint was chosen on these pictures: the evaluation report, on others, decides."
        if exact
        else "No validation pictures were captioned: nothing is known of its quality but by the evaluation report."
    )
    yield "Who is in a picture, and anything that cannot be seen in it, it does not know; it may say so all the same."


def _estimate(found: Mapping[str, float]) -> str:
    """ "7.91 (7.20 to 8.55), n = 45": the interval is of 95 %, over pictures."""
    return f"{found['value']:.3g} ({found['low']:.3g} to {found['high']:.3g}), n = {found['n']}"
