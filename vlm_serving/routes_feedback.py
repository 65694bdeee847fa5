"""`POST /v1/feedback`: what a caption should have been."""

import asyncio
import time
from collections.abc import Callable

from fastapi import APIRouter, Request

from vlm_serving.errors import (
    FeedbackFullError,
    FeedbackNotKeptError,
    FeedbackOffError,
    RequestError,
)
from vlm_serving.feedback_log import FeedbackRow
from vlm_serving.intake import read_json
from vlm_serving.openapi import GUARD, answer_example, json_body, problems
from vlm_serving.openapi_examples import FEEDBACK_ANSWER, FEEDBACK_ASKED
from vlm_serving.schemas import FeedbackAnswerBody, FeedbackBody
from vlm_serving.service import CaptionService

MAX_BODY_BYTES = 64 * 1024


def feedback_router(service_of: Callable[[], CaptionService]) -> APIRouter:
    """The route over the service that `service_of` returns."""
    router = APIRouter()

    @router.post(
        "/v1/feedback",
        summary="Say what a caption should have been",
        response_model=FeedbackAnswerBody,
        openapi_extra=json_body(FeedbackBody, FEEDBACK_ASKED),
        responses=answer_example(FEEDBACK_ANSWER)
        | problems(*GUARD, RequestError, FeedbackOffError, FeedbackFullError, FeedbackNotKeptError),
    )
    async def feedback(request: Request) -> FeedbackAnswerBody:  # pyright: ignore[reportUnusedFunction]
        """The answer says that the correction is on the disk. Sending it again changes nothing; another text for the
        same caption is another correction. Only the form of `id` is checked: which captions were given is in the
        request log, and whoever reads both puts them together.
        """
        service = service_of()
        service.require_feedback()
        body = await read_json(request, FeedbackBody, MAX_BODY_BYTES)
        row = FeedbackRow(
            time_unix_s=time.time(),
            caption_id=body.id,
            caption=" ".join(body.caption.split()),
            rating=body.rating,
            reason=" ".join((body.reason or "").split()),
            key_name=getattr(request.state, "caller", ""),
        )
        if await asyncio.to_thread(service.correct, row):
            service.meters.count("vlm_feedback")
        return FeedbackAnswerBody(request_id=request.state.request_id, feedback_id=row.feedback_id)

    return router
