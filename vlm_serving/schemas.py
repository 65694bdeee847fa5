"""The bodies that travel over HTTP. Field names are a promise to callers: add, never rename."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vlm_serving.generation import FinishReason
from vlm_serving.options import BOUNDS, MAX_PROMPT_CHARACTERS


def _bounded(name: str, description: str) -> Any:
    least, most = BOUNDS[name]
    return Field(ge=least, le=most, description=description)


Finite = Annotated[float, Field(allow_inf_nan=False)]


class SearchFields(BaseModel):
    """How captions are searched for. What is left out is as the model was measured."""

    model_config = ConfigDict(extra="forbid")

    num_beams: Annotated[int | None, Field(ge=1, description="Beams of the search; 1 is greedy and fastest.")] = None
    min_new_tokens: Annotated[int | None, _bounded("min_new_tokens", "Shortest caption, in tokens.")] = None
    length_penalty: Annotated[
        Finite | None,
        _bounded("length_penalty", "With beams: above 1 longer captions win, below 1 shorter ones."),
    ] = None
    no_repeat_ngram_size: Annotated[
        int | None, _bounded("no_repeat_ngram_size", "No run of so many tokens twice; 0: anything may repeat.")
    ] = None
    repetition_penalty: Annotated[
        Finite | None,
        _bounded("repetition_penalty", "Above 1: what was said already becomes less likely; 1: it does not."),
    ] = None
    prompt: Annotated[
        str | None,
        Field(
            max_length=MAX_PROMPT_CHARACTERS,
            description="Words that the caption goes on from, such as `a photo of`; the answer does not repeat them. "
            "Few models were trained for it. Left out: the model's own.",
        ),
    ] = None


class OptionsBody(SearchFields):
    """How to caption. What is left out is as the model was measured."""

    max_new_tokens: Annotated[int | None, Field(ge=1, description="Longest caption, in tokens.")] = None
    num_captions: Annotated[
        int | None,
        Field(ge=1, description="Captions per picture: the best and `alternatives`. Takes as many beams or more."),
    ] = None
    return_embedding: Annotated[bool | None, Field(description="Also tell the picture's `embedding`.")] = None
    explain: Annotated[bool | None, Field(description="Also tell `words`: how sure of each, where it looked.")] = None

    def search(self) -> dict[str, Any]:
        """What was asked of the search, by its names in GenerationOptions."""
        return self.model_dump(exclude_none=True, exclude={"model", "return_embedding", "explain"})


class AskedBody(OptionsBody):
    """What a query may hold: the options, and which model is to answer."""

    model: Annotated[str | None, Field(description="Name of the model, see /v1/models; the first if left out.")] = None


class PictureBody(BaseModel):
    """One picture inside a JSON request."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"oneOf": [{"required": ["base64"]}, {"required": ["url"]}]}
    )

    base64: Annotated[str, Field(description="The file's bytes in base64; a `data:` URL is accepted too.")] = ""
    url: Annotated[str, Field(description="Where to fetch it: a `data:` URL, or https on a host that is allowed.")] = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> "PictureBody":
        if len(self.model_fields_set) != 1:
            raise ValueError("a picture is given by base64 or by url, one of both")
        return self


class CaptionRequestBody(BaseModel):
    """The JSON form of a request."""

    model_config = ConfigDict(extra="forbid")

    images: Annotated[list[PictureBody], Field(min_length=1)]
    model: Annotated[str | None, Field(description="Name of the model, see /v1/models; the first if left out.")] = None
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


Reason = Annotated[FinishReason, Field(description="stop: the caption is complete; length: it was cut off.")]


class AlternativeBody(BaseModel):
    """What else could be said."""

    text: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    token_count: int
    finish_reason: Reason


class CaptionBody(BaseModel):
    """One caption. `confidence` is the geometric mean of the tokens' probabilities, 0..1; `id` names it in the log."""

    id: str
    text: str
    confidence: Annotated[float, Field(ge=0, le=1)]
    token_count: int
    finish_reason: Reason
    alternatives: Annotated[
        list[AlternativeBody] | None, Field(description="The next best, best first, if `num_captions` was above 1.")
    ] = None
    embedding: Annotated[
        list[float] | None,
        Field(description="Mean of the vision encoder's last states, if `return_embedding` was asked for."),
    ] = None
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


class ModelCardBody(BaseModel):
    """A model as OpenAI's clients read it; `version` leads back to the bundle."""

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="Since when this process runs, Unix seconds.")]
    owned_by: str = "vlm-captioning"
    version: str


class ModelsBody(BaseModel):
    """The models behind this address."""

    models: list[ModelBody]
    object: Literal["list"] = "list"
    data: list[ModelCardBody]


class StatusBody(BaseModel):
    """The process is alive."""

    status: Literal["ok"]


class FeedbackBody(BaseModel):
    """A correction."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9._-]{1,64}(/[0-9]{1,4})?$",
            description="The caption's `id` in its answer; the request's id if it held one picture.",
        ),
    ]
    caption: Annotated[str, Field(max_length=1000, pattern=r"\S", description="What it should have been.")]
    rating: Annotated[
        int | None, Field(ge=1, le=5, description="How good the given caption was, 1 worst to 5 best.")
    ] = None
    reason: Annotated[str | None, Field(max_length=500, description="What was wrong with it.")] = None


class FeedbackAnswerBody(BaseModel):
    """A correction was kept. `feedback_id` is the same whenever the same is sent."""

    request_id: str
    feedback_id: str


class OpenAIErrorBody(BaseModel):
    """A problem once more, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = None
    code: str


class ProblemBody(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    error: OpenAIErrorBody
    picture_index: int | None = None
