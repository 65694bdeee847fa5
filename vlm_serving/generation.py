"""How captions are generated when a request says nothing. Kept with the model: what is measured is what is served."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from vlm_serving.errors import BundleError

FinishReason = Literal["stop", "length"]  # the caption is complete; it was cut off


@dataclass(frozen=True)
class GenerationOptions:
    """How captions are generated. One beam is greedy decoding."""

    max_new_tokens: int = 30
    num_beams: int = 1
    min_new_tokens: int = 0
    length_penalty: float = 1.0  # beams: scores are divided by length ** this; above 1 longer captions win
    no_repeat_ngram_size: int = 0  # no run of so many tokens twice; 0: anything may repeat
    repetition_penalty: float = 1.0  # tokens that were said already become this many times less likely; 1: never
    num_captions: int = 1  # how many beams are told, best first; at most num_beams
    prompt: str | None = None  # words that the caption goes on from; None: the bundle's own. A request's, never kept

    def __str__(self) -> str:
        """As logs and reports say it."""
        decoding = "greedy" if self.num_beams == 1 else f"{self.num_beams} beams"
        return f"{decoding}, at most {self.max_new_tokens} tokens"

    def to_json(self) -> dict[str, int | float]:
        """What is kept with a model, as a plain dictionary; `from_json` reads it back."""
        return {name: value for name, value in asdict(self).items() if name != "prompt"}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "GenerationOptions":
        """Read what `to_json` wrote; what is missing has the default. BundleError for an option unknown here."""
        unknown = sorted(set(value) - {field.name for field in fields(cls) if field.name != "prompt"})
        if unknown:
            raise BundleError(
                f"The bundle sets {', '.join(unknown)} for generation, which this version does not know: captions "
                "would not be those that were measured. Serve it with the version that wrote it, or a later one."
            )
        return cls(**value)


DEFAULT_OPTIONS = GenerationOptions()
