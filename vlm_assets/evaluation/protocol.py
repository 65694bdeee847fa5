"""How the numbers came about, for readers and for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlm_serving.generation import GenerationOptions

if TYPE_CHECKING:
    from vlm_assets.evaluation.config import EvalConfig


def protocol(config: EvalConfig, generation: GenerationOptions) -> dict[str, Any]:
    """What scores.json keeps of it. `generation`: the candidate's."""
    return {
        **generation.to_json(),
        "max_pictures": config.max_pictures,
        "resamples": config.resamples,
        "seed": config.seed,
        "min_slice": config.min_slice,
        "gate_min_pictures": config.gate.min_pictures,
        "text": [_captions(config, generation), *METRICS, _intervals(config), *DIFFERENCES, _gate(config)],
    }


METRICS = (
    "BLEU, ROUGE-L and CIDEr are those of the COCO caption evaluation: Penn Treebank tokens, lower case, punctuation "
    "dropped. CIDEr weighs words by how rare they are among the references of the split at hand, so its values on "
    "different splits do not compare; resamples keep the document frequencies of the whole split, so its intervals "
    "leave out that these might have been others.",
    "An exact match is a caption that equals one of its references word for word. Slot accuracy asks whether what the "
    "source declares about the picture (role, colour, …) is what the caption says.",
)
DIFFERENCES = (
    "Differences are resampled in pairs, and their intervals reach as far as the percentiles or the bootstrap-t (Efron "
    "1982; Davison and Hinkley 1997, 5.2), end by end. The latter measures each resample in units of its own standard "
    "error, without which a few skewed differences are found surely better too often; the former keep to their level "
    "where nearly all pictures tie.",
    "Test pictures that the champion was trained on, alone or by others of their cluster, are left out of the "
    "comparison with it, and counted.",
)


def _captions(config: EvalConfig, generation: GenerationOptions) -> str:
    decoding = "greedily" if generation.num_beams == 1 else f"with {generation.num_beams} beams"
    return (
        f"Captions are generated {decoding}, at most {generation.max_new_tokens} tokens, as the sealed bundle says, by "
        "the same code and from the same bundle that serves, on the pixels of the shards."
        + (f" Of each split the first {config.max_pictures:,} pictures count." if config.max_pictures else "")
    )


def _intervals(config: EvalConfig) -> str:
    return (
        "Intervals hold 95 %: percentile bootstrap over clusters (pictures of one sender or product and their near "
        f"duplicates, resampled together), {config.resamples:,} resamples, seed {config.seed}. They cover the choice "
        "of pictures, not the luck of one training run. A share of exactly 0 or 100 % has no spread to resample: of n "
        "independent pictures, the truth may still be 3 / n away (the rule of three; Hanley and Lippman-Hand 1983)."
    )


def _gate(config: EvalConfig) -> str:
    return (
        f"The gate decides on differences from {config.gate.min_pictures} independent pictures or more (those of one "
        "cluster count once) and refuses on fewer."
    )
