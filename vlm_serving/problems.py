"""Errors as callers see them: RFC 9457 problem documents, one shape for every failure."""

from typing import Any

from starlette.responses import JSONResponse

from vlm_serving.errors import ServingError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
TITLES = {
    "bad-picture": "The picture cannot be read",
    "picture-too-large": "The picture is too large",
    "unsupported-picture": "The picture's format is not supported",
    "bad-request": "The request is not valid",
    "malformed-request": "The request cannot be parsed",
    "body-too-large": "The request is too large",
    "body-too-slow": "The request did not arrive in time",
    "unsupported-media-type": "The request's content type is not supported",
    "overloaded": "Too many pictures are in work",
    "not-ready": "No model is loaded yet",
    "unauthorized": "The request needs an API key",
    "rate-limited": "Too many requests from this caller",
    "url-refused": "Pictures are not fetched from this address",
    "url-failed": "The picture's address did not give it",
    "unknown-model": "There is no model of this name",
    "deadline-exceeded": "The answer was not there in time",
    "client-gone": "The client has closed the connection",
    "captioning-failed": "The model failed on a picture",
    "feedback-off": "Corrections are not kept here",
    "feedback-full": "No more corrections can be kept",
    "feedback-not-kept": "The correction could not be kept",
    "metrics-off": "There are no numbers here",
    "not-found": "There is nothing at this address",
    "method-not-allowed": "The address does not take this method",
    "internal-error": "The server failed",
}


def problem_document(status: int, slug: str, detail: str, request_id: str) -> dict[str, Any]:
    """The document's members. `error` says the same as OpenAI's clients read it: they look nowhere else."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {
        "type": f"urn:vlm-captioning:problem:{slug}",
        "title": TITLES.get(slug, slug),
        "status": status,
        "detail": detail,
        "request_id": request_id,
        "error": {"message": detail, "type": kind, "param": None, "code": slug},
    }


def problem(
    status: int,
    slug: str,
    detail: str,
    request_id: str,
    extra: dict[str, Any] | None = None,
    retry_s: int | None = None,
) -> JSONResponse:
    """A problem document; 429 and 503 always carry Retry-After, seconds."""
    body = problem_document(status, slug, detail, request_id) | (extra or {})
    headers = {"retry-after": str(retry_s or RETRY_AFTER_S)} if status in (429, 503) else None
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def problem_of(error: ServingError, request_id: str) -> JSONResponse:
    """The document for one of our own errors; its text is its detail."""
    index: int | None = getattr(error, "picture_index", None)
    extra = None if index is None else {"picture_index": index}
    retry_s: int | None = getattr(error, "retry_after_s", None)
    return problem(error.http_status, error.slug, str(error), request_id, extra, retry_s)
