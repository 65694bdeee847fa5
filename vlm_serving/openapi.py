"""What `/docs` says of `POST /v1/captions`: three ways to send a picture, with examples, and the problems."""

from typing import Any

from vlm_serving.schemas import CaptionRequestBody, ProblemBody

PIXEL_PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"  # one red pixel
)

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_JSON_SCHEMA = CaptionRequestBody.model_json_schema(ref_template="#/components/schemas/{model}")
_COUNT = {"type": "integer", "minimum": 1}
_PARAMETERS = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": text,
        "schema": schema,
    }
    for name, text, schema in (
        ("max_new_tokens", "Longest caption, in tokens; the model's own if left out.", _COUNT),
        ("num_beams", "Beams; 1 is greedy, fastest; the model's own if left out.", _COUNT),
        ("explain", "Also tell each word's confidence and where the model looked for it.", {"type": "boolean"}),
    )
]

CAPTIONS_OPENAPI: dict[str, Any] = {
    "parameters": _PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": _JSON_SCHEMA["$defs"]["PictureBody"],
                        },
                        "options": _JSON_SCHEMA["$defs"]["OptionsBody"],
                    },
                },
                "example": {"images": [{"base64": PIXEL_PNG}], "options": {"num_beams": 3}},
            },
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "image/webp": _BINARY,
        },
    },
}

PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {"application/problem+json": {"schema": ProblemBody.model_json_schema()}},
    }
    for status, text in {
        400: "A picture or the body cannot be read",
        413: "A picture or the body is too large",
        415: "Neither the content type nor the picture format is known",
        422: "The request's options or counts are wrong",
        503: "Overloaded, or no model yet; Retry-After says when to come back",
    }.items()
}
