"""The bodies that travel over HTTP. Field names are a promise to callers: add, never rename."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class OptionsBody(BaseModel):
    """How to caption. What is left out is as the model was measured."""

    model_config = ConfigDict(extra="forbid")

    max_new_tokens: Annotated[int | None, Field(ge=1, description="Longest caption, in tokens.")] = None
    num_beams: Annotated[int | None, Field(ge=1, description="Beams of the search; 1 is greedy and fastest.")] = None
    explain: Annotated[bool | None, Field(description="Also tell `words`: how sure of each, where it looked.")] = None


class PictureBody(BaseModel):
    """One picture inside a JSON request."""

    model_config = ConfigDict(extra="forbid")

    base64: Annotated[str, Field(description="The picture file's bytes in base64; a `data:` URL is accepted too.")]


class CaptionRequestBody(BaseModel):
    """The JSON form of a request."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[PictureBody], Field(min_length=1)]
    options: OptionsBody = OptionsBody()


class ModelBody(BaseModel):
    """Which model answered: `version` leads back to the bundle, its data and its code."""

    name: str
    version: str


class WordBody(BaseModel):
    """A word of the caption. `confidence`: the probability of all its pieces, given the picture and what precedes."""

    text: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    heat: Annotated[
        list[list[int]],
        Field(
            description="Where the model looked for it: a square grid over the picture, rows from the top, 0..255; "
            "255 is the most that any place got for any word of the caption."
        ),
    ]


class CaptionBody(BaseModel):
    """One caption. `confidence` is the geometric mean of the tokens' probabilities, 0..1; `id` names it in the log."""

    id: str
    text: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    token_count: int
    words: Annotated[list[WordBody] | None, Field(description="Only if `explain` was asked for.")] = None


class TimingsBody(BaseModel):
    """Where the time went, milliseconds: reading pictures, waiting for a batch, the model, and all of it."""

    decode: float
    queue: float
    caption: float
    total: float


class CaptionResponse(BaseModel):
    """Captions in the order of the pictures."""

    request_id: str
    model: ModelBody
    captions: list[CaptionBody]
    timings_ms: TimingsBody


class ReadyBody(BaseModel):
    """Whether captions can be had now, and from which model."""

    ready: bool
    model: ModelBody
    replica: str = ""
    loading: Annotated[str, Field(description="Bundle that is being loaded beside the one that serves.")] = ""
    error: Annotated[str, Field(description="Why the last bundle was refused; the one before still serves.")] = ""
    refused: Annotated[str, Field(description="Version of the bundle refused last, empty if the last was taken.")] = ""


class ModelsBody(BaseModel):
    """The models behind this address."""

    models: list[ModelBody]


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    picture_index: int | None = None
