"""OpenAI's chat completions, as far as a captioner can answer them. What it cannot do is refused, not ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vlm_serving.generation import FinishReason
from vlm_serving.schemas import SearchFields, TimingsBody

NO_EFFECT = Field(description="Taken, without effect: the search leaves nothing to chance.")


class TextPartBody(BaseModel):
    """Words beside the pictures. They are not read: a captioner takes no instructions."""

    type: Literal["text"]
    text: str


class ImageUrlBody(BaseModel):
    """Where a picture is."""

    url: Annotated[str, Field(description="A data URL: `data:image/jpeg;base64,…`.")]
    detail: Annotated[Literal["auto", "low", "high"] | None, NO_EFFECT] = None


class ImagePartBody(BaseModel):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrlBody


class UserMessageBody(BaseModel):
    """What the caller says; the pictures of the last one are captioned."""

    role: Literal["user"]
    content: str | list[Annotated[TextPartBody | ImagePartBody, Field(discriminator="type")]]


class OtherMessageBody(BaseModel):
    """What was said before; it is not read."""

    role: Literal["system", "developer", "assistant", "tool", "function"]


class StreamOptionsBody(BaseModel):
    """What a stream tells besides."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None


class ResponseFormatBody(BaseModel):
    """The form of the answer: text, nothing else."""

    type: Literal["text"]


class ChatBody(SearchFields):
    """A request. The fields of the search are our own; OpenAI's clients send them by `extra_body`."""

    model: Annotated[str, Field(description="Name or version of the model, as `/v1/models` has them.")]
    messages: Annotated[
        list[Annotated[UserMessageBody | OtherMessageBody, Field(discriminator="role")]], Field(min_length=1)
    ]
    max_completion_tokens: Annotated[
        int | None,
        Field(ge=1, description="Longest caption of a picture, in tokens; more than the limit here means the limit."),
    ] = None
    max_tokens: Annotated[int | None, Field(ge=1, description="The same by its old name; the smaller one holds.")] = (
        None
    )
    n: Annotated[
        int | None, Field(ge=1, description="Choices, best first. Takes as many beams or more as `num_beams`.")
    ] = None
    stream: Annotated[bool | None, Field(description="Answer as server-sent events, once the caption is there.")] = None
    stream_options: StreamOptionsBody | None = None
    response_format: ResponseFormatBody | None = None
    temperature: Annotated[Any, NO_EFFECT] = None
    top_p: Annotated[Any, NO_EFFECT] = None
    seed: Annotated[Any, NO_EFFECT] = None
    frequency_penalty: Annotated[Any, NO_EFFECT] = None
    presence_penalty: Annotated[Any, NO_EFFECT] = None
    user: Annotated[Any, NO_EFFECT] = None
    metadata: Annotated[Any, NO_EFFECT] = None
    store: Annotated[Any, NO_EFFECT] = None

    def search(self, max_new_tokens: int) -> dict[str, Any]:
        """What was asked of the search, by its names in GenerationOptions; no caption longer than `max_new_tokens`."""
        asked = self.model_dump(include=set(SearchFields.model_fields), exclude_none=True)
        longest = [one for one in (self.max_completion_tokens, self.max_tokens) if one is not None]
        if longest:
            asked["max_new_tokens"] = min(*longest, max_new_tokens)
        if self.n is not None:
            asked["num_captions"] = self.n
        return asked


class ChatMessageBody(BaseModel):
    """The answer: one line per picture."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChoiceBody(BaseModel):
    """One answer; with `n` above 1 the first is the best."""

    index: int
    message: ChatMessageBody
    logprobs: None = None
    finish_reason: FinishReason


class UsageBody(BaseModel):
    """Tokens read (patches of the pictures, start and prompt) and said (in all choices)."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletionBody(BaseModel):
    """An answer. `id` is the request's, for the log and for corrections; `system_fingerprint` the model's version."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: Annotated[int, Field(description="Unix seconds.")]
    model: str
    system_fingerprint: str
    choices: list[ChoiceBody]
    usage: UsageBody
    timings_ms: TimingsBody
