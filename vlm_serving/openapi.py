"""The API's own description, `/openapi.json`: what FastAPI knows of the routes, and what they read by themselves."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from vlm_serving.chat_schemas import ChatBody
from vlm_serving.config import ServingConfig
from vlm_serving.connection import TIMEOUT_HEADER
from vlm_serving.errors import (
    DeadlineExceededError,
    NotReadyError,
    OverloadedError,
    PictureError,
    PictureFailedError,
    RateLimitedError,
    RequestError,
    ServingError,
    UnauthorizedError,
    UnknownModelError,
)
from vlm_serving.generation import GenerationOptions
from vlm_serving.openapi_examples import problem_example
from vlm_serving.options import bounds
from vlm_serving.problems import MEDIA_TYPE, TITLES
from vlm_serving.schemas import CaptionRequestBody, FeedbackBody, ProblemBody
from vlm_serving.service import CaptionService

REF = "#/components/schemas/{model}"
READ_BY_HAND: tuple[type[BaseModel], ...] = (CaptionRequestBody, ChatBody, FeedbackBody, ProblemBody)  # by our own code


def describe(web: FastAPI, service_of: Callable[[], CaptionService]) -> None:
    """Let the application describe itself, with the limits that its settings have."""

    def document() -> dict[str, Any]:
        made = get_openapi(
            title=web.title, version=web.version, summary=web.summary, description=web.description, routes=web.routes
        )
        _, schemas = models_json_schema([(one, "validation") for one in READ_BY_HAND], ref_template=REF)
        made.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
        _say_problem(made)
        config = service_of().config
        _limit(made, _most(config))
        made["components"]["schemas"]["CaptionRequestBody"]["properties"]["images"]["maxItems"] = config.max_pictures
        return made

    web.openapi = document


def ref(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a body in READ_BY_HAND."""
    return {"$ref": REF.format(model=model.__name__)}


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that takes JSON only."""
    content = {"application/json": {"schema": ref(model), "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def answer_example(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: what it answers if all is well."""
    return {200: {"content": {"application/json": {"example": example}}}}


GUARD: tuple[type[ServingError], ...] = (UnauthorizedError, RateLimitedError)  # before every route but the probes
CAPTIONING: tuple[type[ServingError], ...] = (
    *GUARD, PictureError, RequestError, PictureFailedError, UnknownModelError, OverloadedError, NotReadyError,
    DeadlineExceededError,
)  # fmt: skip
TIMEOUT_PARAMETER: dict[str, Any] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "How long the caller waits, seconds; then the request is dropped and answered 504.",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}


def problems(*errors: type[ServingError]) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: the problems that these errors and what derives from them become, and the unexpected."""
    by_status: dict[int, dict[str, str]] = {}
    for error in (*errors, ServingError):
        for one in [error] if error is ServingError else _tree(error):
            by_status.setdefault(one.http_status, {})[one.slug] = TITLES.get(one.slug, one.slug)
    return {status: _problem_response(status, by_status[status]) for status in sorted(by_status)}


def query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of a model as query parameters, none of them required."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": field.get("description", ""),
            "schema": {
                key: value
                for key, value in next(one for one in field["anyOf"] if one["type"] != "null").items()
                if key != "description"
            },
        }
        for name, field in model.model_json_schema()["properties"].items()
    ]


def _tree(error: type[ServingError]) -> Iterator[type[ServingError]]:
    yield error
    for below in error.__subclasses__():
        yield from _tree(below)


def _problem_response(status: int, titles: dict[str, str]) -> dict[str, Any]:
    examples = {slug: {"value": problem_example(status, slug)} for slug in titles}
    content = {MEDIA_TYPE: {"schema": ref(ProblemBody), "examples": examples}}
    described: dict[str, Any] = {"description": "; ".join(titles.values()), "content": content}
    if status in (429, 503):
        seconds = {"schema": {"type": "string"}, "description": "Seconds until it is worth another try"}
        described["headers"] = {"Retry-After": seconds}
    return described


def _most(config: ServingConfig) -> dict[str, float]:
    """The upper ends that the settings decide on; a model's own settings may lie above."""
    most = {name: limits[1] for name, limits in bounds(config, GenerationOptions(max_new_tokens=1)).items()}
    return {**{name: most[name] for name in ("max_new_tokens", "num_beams", "num_captions")}, "n": config.max_num_beams}


def _say_problem(document: dict[str, Any]) -> None:
    """FastAPI's own shape of a 422, which no route answers, gives way to ours."""
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                operation["responses"]["422"] = problems(RequestError)[422]


def _limit(document: dict[str, Any], most: dict[str, float]) -> None:
    """Write the upper ends into every schema of a field or parameter of that name."""
    for schema in document["components"]["schemas"].values():
        for name, field in schema.get("properties", {}).items():
            _set_maximum(field, most.get(name))
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                _set_maximum(parameter["schema"], most.get(parameter["name"]))


def _set_maximum(schema: dict[str, Any], most: float | None) -> None:
    if most is not None:
        for one in schema.get("anyOf", [schema]):
            if one.get("type") == "integer":
                one["maximum"] = most
