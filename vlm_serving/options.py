"""How a request wants its captions: what it asks for, within the limits, and the bundle's own settings for the rest."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vlm_serving.config import ServingConfig
from vlm_serving.errors import RequestError
from vlm_serving.generation import GenerationOptions

Bounds = Mapping[str, tuple[float, float]]

# Both ends are included. What grows with the machine has no upper end here: the deployment sets it.
BOUNDS: dict[str, tuple[float, float]] = {
    "min_new_tokens": (0, 512),
    "length_penalty": (-5, 5),
    "no_repeat_ngram_size": (0, 16),
    "repetition_penalty": (0.1, 10),
}
MAX_PROMPT_CHARACTERS = 200


def bounds(config: ServingConfig, own: GenerationOptions) -> dict[str, tuple[float, float]]:
    """Least and most of every option; a request may always ask for what the model does anyway."""
    most_beams = max(config.max_num_beams, own.num_beams)
    return {
        "max_new_tokens": (1, max(config.max_new_tokens, own.max_new_tokens)),
        "num_beams": (1, most_beams),
        "num_captions": (1, most_beams),
        **BOUNDS,
    }


def options_to_send(asked: Mapping[str, Any], own: GenerationOptions, config: ServingConfig) -> dict[str, Any]:
    """By name those of `chosen_options` that were asked for or gave way; the rest is left to whatever model answers."""
    chosen = chosen_options(asked, own, config)
    return {name: value for name, value in vars(chosen).items() if name in asked or value != getattr(own, name)}


def chosen_options(asked: Mapping[str, Any], own: GenerationOptions, config: ServingConfig) -> GenerationOptions:
    """`asked` over the bundle's `own`. What was not asked for gives way: as many beams as captions, no fewer tokens at
    least than at most. Raises RequestError with every fault at once.
    """
    limits = bounds(config, own)
    faults = [
        f"{name} is {value}; it must be {limits[name][0]:g} to {limits[name][1]:g}"
        for name, value in asked.items()
        if name in limits and not limits[name][0] <= value <= limits[name][1]
    ]
    options = replace(own, **asked)
    if "num_beams" not in asked:
        options = replace(options, num_beams=max(own.num_beams, options.num_captions))
    for name, limit in (("min_new_tokens", "max_new_tokens"), ("num_captions", "num_beams")):
        value, most = getattr(options, name), getattr(options, limit)
        if value > most and name in asked:
            faults.append(f"{name} is {value}; it must be at most {limit}, which is {most}")
        elif value > most:
            options = replace(options, **{name: most})
    if faults:
        raise RequestError(
            f"{'; '.join(faults)}. Leave {'it' if len(faults) == 1 else 'them'} out for the model's own."
        )
    return options
