"""What the front (HTTP, decoding) and the engine (models) say to each other, in one process or across a hop of Ray.

The front prepares pictures for the model that it knows. Should another have taken its place meanwhile whose pictures
look otherwise, the engine says so, and gets the encoded pictures: nothing is captioned at a wrong size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlm_serving.captioner import Caption
from vlm_serving.errors import NotReadyError, ServingError, UnknownModelError
from vlm_serving.generation import GenerationOptions
from vlm_serving.preprocessing import PreprocessingContract


@dataclass(frozen=True)
class ModelCard:
    """What the front has to know of a model."""

    name: str
    version: str
    contract: PreprocessingContract
    options: GenerationOptions


@dataclass(frozen=True)
class CaptionJob:
    """The pictures of one request, as `card` wants them; `encoded` holds the files instead if that was wrong."""

    card: ModelCard
    options: Mapping[str, Any]  # by name; what is missing is the model's own
    sha256: Sequence[str]  # of each picture's file
    pixels: Sequence[NDArray[np.uint8]] = ()  # each (3, H, W)
    encoded: Sequence[bytes] = ()
    left_s: float | None = None  # then nobody waits for it any more
    explain: bool = False  # captions also carry where the model looked


@dataclass(frozen=True)
class JobResult:
    """A caption or an error for each picture, by the model `card`; nothing if it wants pictures of another size."""

    card: ModelCard
    results: Sequence[Caption | ServingError] = ()
    caption_ms: float = 0.0  # from the first picture's start in the model to the last one's end
    cached: int = 0  # pictures answered without the model


@dataclass(frozen=True)
class EngineState:
    """The models of an engine, and what became of the last attempt to load; see ModelSlot."""

    default: str  # name of the model that answers if none is named
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    loading: str = ""
    error: str = ""
    refused: str = ""
    replica: str = ""

    def card(self, name: str = "") -> ModelCard:
        """The model called `name`, or the default. Raises NotReadyError, UnknownModelError."""
        card = self.cards.get(name or self.default)
        if card is not None:
            return card
        if name and name != self.default:
            known = ", ".join(sorted({self.default, *self.cards}))
            raise UnknownModelError(f"There is no model {name[:80]!r}; known are: {known}. Ask for one of them.")
        reason = self.error or "its bundle is still being loaded"
        raise NotReadyError(f"No model serves yet: {reason}. Try again in a few seconds; GET /readyz tells more.")


class Engine(Protocol):
    """Where captions are made: in this process (`engine.LocalEngine`) or behind a handle (`remote.RemoteEngine`)."""

    async def state(self, fresh: bool = False) -> EngineState:
        """Which models there are. Without `fresh` it may be what was heard last; the answers to jobs renew it."""
        ...

    async def caption(self, job: CaptionJob) -> JobResult:
        """Caption the pictures of a job. Cancelling it takes those that wait out of the queue."""
        ...
