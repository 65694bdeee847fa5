"""Examples for `/docs`: what is asked and answered, and one detail per problem. Tests hold them to the schemas."""

from typing import Any

from vlm_serving.problems import problem_document

PIXEL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"  # one red pixel
)
_REQUEST_ID = "4f0c8a6d1e5b4c0f9a7d2b3e6c8f1a05"
_VERSION = "0f3a9c51d27e8b64"
_TIMINGS = {"decode": 3.1, "queue": 4.9, "caption": 41.7, "total": 49.7}

CAPTIONS_ASKED: dict[str, Any] = {
    "images": [{"base64": PIXEL_PNG}],
    "options": {"num_captions": 2, "max_new_tokens": 20},
}
CAPTIONS_ANSWER: dict[str, Any] = {
    "request_id": _REQUEST_ID,
    "model": {"name": "captioner", "version": _VERSION},
    "captions": [
        {
            "id": _REQUEST_ID,
            "text": "a red square",
            "confidence": 0.871204,
            "token_count": 4,
            "finish_reason": "stop",
            "alternatives": [
                {"text": "a red wall", "confidence": 0.640118, "token_count": 4, "finish_reason": "stop"},
            ],
        }
    ],
    "timings_ms": _TIMINGS,
}
_CARD = {"id": "captioner", "object": "model", "created": 1790000000, "owned_by": "vlm-captioning", "version": _VERSION}
MODEL_ANSWER: dict[str, Any] = _CARD
MODELS_ANSWER: dict[str, Any] = {
    "models": [{"name": "captioner", "version": _VERSION}],
    "object": "list",
    "data": [_CARD],
}
READY_ANSWER: dict[str, Any] = {
    "ready": True,
    "model": {"name": "captioner", "version": _VERSION},
    "replica": "tx8k2p",
    "loading": "",
    "error": "",
    "refused": "",
}
CHAT_ASKED: dict[str, Any] = {
    "model": "captioner",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL_PNG}"}},
            ],
        }
    ],
    "max_completion_tokens": 20,
}
CHAT_ANSWER: dict[str, Any] = {
    "id": _REQUEST_ID,
    "object": "chat.completion",
    "created": 1790000000,
    "model": "captioner",
    "system_fingerprint": _VERSION,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a red square", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 578, "completion_tokens": 4, "total_tokens": 582},
    "timings_ms": _TIMINGS,
}
CHAT_STREAM = (
    f'data: {{"id":"{_REQUEST_ID}","created":1790000000,"model":"captioner","system_fingerprint":"{_VERSION}",'
    '"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a red square"},"logprobs":null,'
    '"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
FEEDBACK_ASKED: dict[str, Any] = {"id": _REQUEST_ID, "caption": "a red square on white", "rating": 3}
FEEDBACK_ANSWER: dict[str, Any] = {
    "request_id": "9b1d6c0e4a7f4d2c8e5b3a1f0c9d7e6b",
    "feedback_id": "5d41402abc4b2a76b9719d911017c592",
}
METRICS_ANSWER = """\
# HELP vlm_requests_total Requests answered, by HTTP status.
# TYPE vlm_requests_total counter
vlm_requests_total{status="200"} 1207.0
"""

PROBLEM_DETAILS = {
    "bad-picture": "files[1] (shoe.jpg): The picture is damaged or cut off. Send it again.",
    "picture-too-large": "The picture has 31,457,280 bytes; the limit is 20,971,520. Send less at once.",
    "unsupported-picture": "body: The picture is TIFF, which is not read. Allowed: JPEG, PNG, WebP, GIF, BMP.",
    "bad-request": "max_new_tokens is 99; it must be 1 to 30. Leave it out for the model's own.",
    "malformed-request": "The body is not JSON: expected value at line 1 column 1. See /docs for the form.",
    "body-too-large": "The request body has more than 67,108,864 bytes, which is the limit. Send less at once.",
    "unsupported-media-type": "The content type is 'text/plain'. Send application/json.",
    "unknown-model": "There is no model 'gpt-4o'; known are: captioner. Ask for one of them.",
    "unauthorized": "The request has no API key. Send `Authorization: Bearer KEY` or `x-api-key: KEY`.",
    "body-too-slow": "The request body took longer than 60 s. Send less at once.",
    "rate-limited": "The caller has sent 60 requests in a minute, which is the limit. Try again in 2 s.",
    "url-refused": "images[0]: the URL begins with 'https://example.'; pictures are not fetched from other places. "
    "Send the picture itself in a data URL (data:image/jpeg;base64,…).",
    "url-failed": "images[0]: https://pictures.example/a.jpg answered 404. Check the address.",
    "deadline-exceeded": "The request was not answered within 60 s; its pictures were taken out of the queue. "
    "Send fewer at once, allow more time, or try again later.",
    "captioning-failed": "files[0]: The model failed on it (RuntimeError: out of memory). Report it.",
    "overloaded": "128 pictures are in work; the limit is 128. Try again in 3 s.",
    "not-ready": "No model serves yet: it is being loaded. Try again soon.",
    "feedback-off": "Corrections are not kept here: the server has no request log. Set VLM_REQUEST_LOG.",
    "feedback-full": "The log of corrections holds 67,108,800 bytes; the limit is 67,108,864. Its operator must move "
    "files away or raise feedback_log_max_bytes.",
    "feedback-not-kept": "The correction could not be written (No space left on device). Send it again later.",
    "metrics-off": "Numbers are kept elsewhere: MemoryMeters. Start with PrometheusMeters.",
    "internal-error": f"An unexpected error; the log has it under request id {_REQUEST_ID}. Report it.",
}


def problem_example(status: int, slug: str) -> dict[str, Any]:
    """A problem document of this kind."""
    return problem_document(status, slug, PROBLEM_DETAILS.get(slug, ""), _REQUEST_ID)
