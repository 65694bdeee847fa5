"""`POST /v1/chat/completions`: captions for whoever speaks OpenAI's protocol."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from vlm_serving.captioner import Alternative, Caption
from vlm_serving.chat_schemas import (
    ChatBody,
    ChatCompletionBody,
    ChatMessageBody,
    ChoiceBody,
    ImagePartBody,
    UsageBody,
    UserMessageBody,
)
from vlm_serving.chat_stream import events
from vlm_serving.config import ServingConfig
from vlm_serving.connection import asked_timeout_s, while_connected
from vlm_serving.errors import RequestError
from vlm_serving.intake import picture_at, read_json
from vlm_serving.openapi import CAPTIONING, TIMEOUT_PARAMETER, answer_example, json_body, problems
from vlm_serving.openapi_examples import CHAT_ANSWER, CHAT_ASKED, CHAT_STREAM
from vlm_serving.routes_captions import timings
from vlm_serving.routes_models import model_named
from vlm_serving.service import Answer, CaptionService, Upload

HOW_TO = '{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,…"}}'
RESPONSES: dict[int | str, dict[str, Any]] = answer_example(CHAT_ANSWER) | problems(*CAPTIONING)
RESPONSES[200]["content"]["text/event-stream"] = {"example": CHAT_STREAM}


def chat_router(service_of: Callable[[], CaptionService]) -> APIRouter:
    """The route over the service that `service_of` returns."""
    router = APIRouter()

    @router.post(
        "/v1/chat/completions",
        summary="Caption pictures for an OpenAI client",
        response_model=ChatCompletionBody,
        openapi_extra={"parameters": [TIMEOUT_PARAMETER], **json_body(ChatBody, CHAT_ASKED)},
        responses=RESPONSES,
    )
    async def chat(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Captions the pictures of the last user message, one line each. Its words and all other messages are not
        read: a captioner takes no instructions. Sampling settings are taken, without effect; what would change the form
        of the answer (tools, JSON, log-probabilities) is refused.
        """
        started_s = time.perf_counter()
        service = service_of()
        with service.place():  # before a byte of the body is read
            timeout_s = asked_timeout_s(request.headers, service.config.deadline_s)
            body = await read_json(request, ChatBody, service.config.max_body_bytes)
            model = await model_named(service, body.model)
            uploads = await _pictures(body, service.config)
            request_id: str = request.state.request_id
            asked = body.search(service.config.max_new_tokens)
            work = service.caption(uploads, request_id, asked, model=model, timeout_s=timeout_s)
            answer = await while_connected(request, work)
        completion = _completion(answer, request_id, started_s)
        request.state.timings_ms = completion.timings_ms
        headers = {"x-model-version": answer.version}
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            headers["cache-control"] = "no-cache"
            return StreamingResponse(events(completion, include_usage), 200, headers, "text/event-stream")
        return JSONResponse(completion.model_dump(), headers=headers)

    return router


async def _pictures(body: ChatBody, config: ServingConfig) -> list[Upload]:
    """The pictures of the last user message. Raises RequestError, PictureError."""
    asked = [(i, one) for i, one in enumerate(body.messages) if isinstance(one, UserMessageBody)]
    if not asked:
        raise RequestError(f"There is no message of the role user. Send one with a picture: {HOW_TO}.")
    number, message = asked[-1]
    parts = [] if isinstance(message.content, str) else message.content
    found = [(place, part) for place, part in enumerate(parts) if isinstance(part, ImagePartBody)]
    if not found:
        raise RequestError(f"The last user message, messages[{number}], holds no picture. Add a content part {HOW_TO}.")
    if len(found) > config.max_pictures:
        raise RequestError(f"The request has {len(found)} pictures; the limit is {config.max_pictures}. Split it.")
    reading = (
        picture_at(part.image_url.url, index, f"messages[{number}].content[{place}]", config)
        for index, (place, part) in enumerate(found)
    )
    return list(await asyncio.gather(*reading))


def _completion(answer: Answer, request_id: str, started_s: float) -> ChatCompletionBody:
    ranked = list(zip(*(_told(caption) for caption in answer.captions), strict=True))
    read = sum(caption.read_token_count for caption in answer.captions)
    said = sum(one.token_count for choice in ranked for one in choice)
    return ChatCompletionBody(
        id=request_id,
        created=int(time.time()),
        model=answer.model,
        system_fingerprint=answer.version,
        choices=[_choice(index, one) for index, one in enumerate(ranked)],
        usage=UsageBody(prompt_tokens=read, completion_tokens=said, total_tokens=read + said),
        timings_ms=timings(answer, started_s),
    )


def _told(caption: Caption) -> Sequence[Caption | Alternative]:
    return (caption, *caption.alternatives)


def _choice(index: int, captions: Sequence[Caption | Alternative]) -> ChoiceBody:
    """The captions of all pictures that share a rank."""
    cut = any(one.finish_reason == "length" for one in captions)
    message = ChatMessageBody(content="\n".join(one.text for one in captions))
    return ChoiceBody(index=index, message=message, finish_reason="length" if cut else "stop")
