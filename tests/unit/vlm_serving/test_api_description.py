"""The API does what its description says: schemathesis reads it and sends what it allows, and what it does not."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis.config import (
    ChecksConfig,
    GenerationConfig,
    NotAServerErrorConfig,
    PositiveDataAcceptanceConfig,
    ProjectConfig,
    ProjectsConfig,
    SchemathesisConfig,
)
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import JsonSchemaError

from tests.serving import make_client, make_service
from tests.tiny import tiny_bundle
from vlm_serving.generation import GenerationOptions
from vlm_serving.problems import MEDIA_TYPE
from vlm_serving.prometheus_meters import PrometheusMeters
from vlm_serving.request_log import RequestLog
from vlm_serving.schemas import ProblemBody
from vlm_serving.service import CaptionService
from vlm_serving.web import create_web

ROUTES = [
    "GET /healthz", "GET /metrics", "GET /readyz", "GET /v1/models", "GET /v1/models/{name}",
    "POST /v1/captions", "POST /v1/chat/completions", "POST /v1/feedback",
]  # fmt: skip
EXAMPLES = 6  # made up per route, besides those that cover every field and its bounds
# What follows the schema may be refused all the same: bytes made up are no picture, words no data URL, and options
# that are right each may contradict each other. 504: who allows a nanosecond gets no answer.
ACCEPTED = PositiveDataAcceptanceConfig(expected_statuses=["2xx", "400", "404", "413", "415", "422", "504"])

NO_FAILURE = NotAServerErrorConfig(expected_statuses=["2xx", "4xx", "504"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaptionService]:
    folder = tmp_path_factory.mktemp("api")
    bundle = tiny_bundle(folder / "bundle", generation=GenerationOptions(max_new_tokens=3))
    log = RequestLog(folder / "log")
    made = make_service(bundle, log, meters=PrometheusMeters(), max_new_tokens=20, max_num_beams=3)
    yield made
    made.close()


@pytest.fixture(scope="module")
def document(service: CaptionService) -> dict[str, Any]:
    return make_client(service).get("/openapi.json").json()


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_described_with_an_example_of_its_answer(document: dict[str, Any]) -> None:
    found = operations(document)
    assert sorted(found) == ROUTES
    for name, operation in found.items():
        assert operation["summary"], name
        assert all("example" in content for content in operation["responses"]["200"]["content"].values()), name


@pytest.mark.parametrize("name", [name for name in ROUTES if name != "GET /metrics"])
def test_examples_of_answers_are_of_the_form_that_is_answered(
    service: CaptionService, document: dict[str, Any], name: str
) -> None:
    method, path = name.split()
    example = operations(document)[name]["responses"]["200"]["content"]["application/json"]["example"]
    operation = schemathesis.openapi.from_dict(document)[path][method]
    operation.validate_response(answered(example))
    with pytest.raises(JsonSchemaError, match="required property"):  # or it would take anything
        operation.validate_response(answered({}))


def answered(body: dict[str, Any]) -> httpx.Response:
    answer = httpx.Response(200, json=body, request=httpx.Request("GET", "http://captioner"))
    answer.elapsed = timedelta()
    return answer


@pytest.mark.parametrize("path", ["/v1/captions", "/v1/chat/completions", "/v1/feedback"])
def test_examples_of_requests_work(service: CaptionService, document: dict[str, Any], path: str) -> None:
    example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = make_client(service).post(path, json=example)
    assert answer.status_code == 200, answer.text


def test_every_problem_has_an_example_that_says_something(document: dict[str, Any]) -> None:
    kinds: set[str] = set()
    for name, operation in operations(document).items():
        for status, response in operation["responses"].items():
            for slug, example in response["content"].get(MEDIA_TYPE, {}).get("examples", {}).items():
                problem = ProblemBody.model_validate(example["value"], extra="forbid")
                assert (str(problem.status), problem.error.code) == (status, slug), name
                assert len(problem.detail) > 20 and problem.title != slug, slug
                kinds.add(slug)
    assert {"bad-picture", "overloaded", "unknown-model", "feedback-full", "internal-error"} <= kinds


def test_schemathesis_finds_nothing(service: CaptionService) -> None:
    project = ProjectConfig(
        checks=ChecksConfig(positive_data_acceptance=ACCEPTED, not_a_server_error=NO_FAILURE),
        generation=GenerationConfig(max_examples=EXAMPLES, deterministic=True),
    )
    config = SchemathesisConfig(projects=ProjectsConfig(default=project))
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_web(lambda: service), config=config)
    failures: list[str] = []
    good: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            failures += failures_of(event)
            for interaction in event.recorder.interactions.values():
                asked[event.recorder.label] += 1
                good[event.recorder.label] += bool(interaction.response and interaction.response.status_code == 200)
    assert not failures, "\n".join(failures)
    assert all(good[name] > 0 for name in ROUTES), good  # or nothing was looked at
    assert all(asked[name] > 50 for name in ROUTES if name.startswith("POST")), asked


def failures_of(event: events.ScenarioFinished) -> list[str]:
    checks = [check for case in event.recorder.checks.values() for check in case]
    return [
        f"{event.recorder.label}: {check.name}: {check.failure_info.failure.message}\n{check.failure_info.code_sample}"
        for check in checks
        if check.failure_info
    ]
