"""`POST /v1/captions`: pictures in, captions out."""

import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from vlm_serving.captioner import Caption
from vlm_serving.connection import asked_timeout_s, while_connected
from vlm_serving.intake import read_request
from vlm_serving.openapi import CAPTIONING, TIMEOUT_PARAMETER, answer_example, problems, query_parameters, ref
from vlm_serving.openapi_examples import CAPTIONS_ANSWER, CAPTIONS_ASKED
from vlm_serving.schemas import (
    AlternativeBody,
    AskedBody,
    CaptionBody,
    CaptionRequestBody,
    CaptionResponse,
    ModelBody,
    OptionsBody,
    TimingsBody,
    WordBody,
)
from vlm_serving.service import Answer, CaptionService, caption_id

_FILE = {"type": "string", "format": "binary"}
_RAW = {"schema": _FILE}
_FORM = {"type": "object", "required": ["files"], "properties": {"files": {"type": "array", "items": _FILE}}}
WAYS_IN: dict[str, Any] = {
    "parameters": [*query_parameters(AskedBody), TIMEOUT_PARAMETER],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": ref(CaptionRequestBody), "example": CAPTIONS_ASKED},
            "image/jpeg": _RAW,
            "image/png": _RAW,
            "image/webp": _RAW,
            "image/gif": _RAW,
            "image/bmp": _RAW,
            "application/octet-stream": _RAW,
        },
    },
}


def captions_router(service_of: Callable[[], CaptionService]) -> APIRouter:
    """The route over the service that `service_of` returns."""
    router = APIRouter()

    @router.post(
        "/v1/captions",
        summary="Caption one or more pictures",
        response_model=CaptionResponse,
        openapi_extra=WAYS_IN,
        responses=answer_example(CAPTIONS_ANSWER) | problems(*CAPTIONING),
    )
    async def captions(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """All pictures of a request are captioned, or none: the problem then names the first that cannot be read."""
        started_s = time.perf_counter()
        service = service_of()
        with service.place():  # before a byte of the body is read
            timeout_s = asked_timeout_s(request.headers, service.config.deadline_s)
            uploads, options = await read_request(request, service.config)
            request_id: str = request.state.request_id
            work = service.caption(
                uploads, request_id, options.search(), model=options.model or "", explain=bool(options.explain),
                timeout_s=timeout_s,
            )  # fmt: skip
            answer = await while_connected(request, work)
        body = CaptionResponse(
            request_id=request_id,
            model=ModelBody(name=answer.model, version=answer.version),
            captions=caption_bodies(answer, request_id, options),
            timings_ms=timings(answer, started_s),
        )
        request.state.timings_ms = body.timings_ms
        return JSONResponse(body.model_dump(exclude_none=True), headers={"x-model-version": answer.version})

    return router


def timings(answer: Answer, started_s: float) -> TimingsBody:
    """Times as the caller sees them: `decode` includes reading the body. `started_s`: time.perf_counter()."""
    total_ms = 1000 * (time.perf_counter() - started_s)
    return TimingsBody(
        decode=round(answer.decode_ms + total_ms - answer.total_ms, 3),
        queue=round(answer.queue_ms, 3),
        caption=round(answer.caption_ms, 3),
        total=round(total_ms, 3),
    )


def caption_bodies(answer: Answer, request_id: str, options: OptionsBody) -> list[CaptionBody]:
    """The captions as they are told, in the order of the pictures."""
    count = len(answer.captions)
    return [_body(one, caption_id(request_id, i, count), options) for i, one in enumerate(answer.captions)]


def _body(caption: Caption, name: str, options: OptionsBody) -> CaptionBody:
    others = [
        AlternativeBody(
            text=other.text,
            confidence=_share(other.confidence),
            token_count=other.token_count,
            finish_reason=other.finish_reason,
        )
        for other in caption.alternatives
    ]
    return CaptionBody(
        id=name,
        text=caption.text,
        confidence=_share(caption.confidence),
        token_count=caption.token_count,
        finish_reason=caption.finish_reason,
        alternatives=others or None,
        embedding=caption.embedding.tolist() if options.return_embedding else None,
        words=_words(caption),
    )


def _words(caption: Caption) -> list[WordBody] | None:
    if caption.heat is None:
        return None
    return [
        WordBody(text=word.text, confidence=_share(word.probability), heat=heat.tolist())
        for word, heat in zip(caption.words, caption.heat, strict=True)
    ]


def _share(value: float) -> float:
    """A probability as it is told: no rounding error beyond 0 and 1, six digits."""
    return round(min(1.0, max(0.0, value)), 6)
