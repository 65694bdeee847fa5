"""A chat completion as server-sent events: for each choice who speaks, what is said, and why it ended."""

import json
from collections.abc import Iterator
from typing import Any

from vlm_serving.chat_schemas import ChatCompletionBody, ChoiceBody

DONE = "data: [DONE]\n\n"


def events(completion: ChatCompletionBody, include_usage: bool) -> Iterator[str]:
    """The events of a completion that is there already, as OpenAI's clients read them."""
    base = completion.model_dump(include={"id", "created", "model", "system_fingerprint"})
    base["object"] = "chat.completion.chunk"
    if include_usage:
        base["usage"] = None
    for choice in completion.choices:
        for delta, reason in _steps(choice):
            one = {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": reason}
            yield _event({**base, "choices": [one]})
    if include_usage:
        yield _event({**base, "choices": [], "usage": completion.usage.model_dump()})
    yield DONE


def _steps(choice: ChoiceBody) -> Iterator[tuple[dict[str, str], str | None]]:
    yield {"role": "assistant", "content": ""}, None
    yield {"content": choice.message.content}, None
    yield {}, choice.finish_reason


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
