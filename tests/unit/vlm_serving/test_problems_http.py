"""Every refusal has one shape, wherever it comes from, and no address or method escapes it."""

from pathlib import Path

import httpx
import pytest

from tests.serving import make_client, make_service
from vlm_serving import errors
from vlm_serving.errors import PictureError
from vlm_serving.openapi import problems
from vlm_serving.openapi_examples import PROBLEM_DETAILS
from vlm_serving.problems import TITLES
from vlm_serving.schemas import ProblemBody


@pytest.fixture(scope="module")
def client(bundle: Path) -> httpx.Client:
    return make_client(make_service(bundle))


@pytest.mark.parametrize(
    ("method", "path", "status", "slug", "allow"),
    [
        ("GET", "/v1/nothing", 404, "not-found", None),
        ("POST", "/", 405, "method-not-allowed", "GET"),
        ("DELETE", "/v1/captions", 405, "method-not-allowed", "POST"),
        ("GET", "/v1/chat/completions", 405, "method-not-allowed", "POST"),
        ("PUT", "/v1/feedback", 405, "method-not-allowed", "POST"),
        ("POST", "/metrics", 405, "method-not-allowed", "GET"),
        ("BREW", "/healthz", 405, "method-not-allowed", "GET"),
        ("GET", "/v1/models/a%2Fb", 404, "not-found", None),
        ("GET", "/v1/models/%00", 404, "unknown-model", None),
        ("POST", "/v1/captions", 415, "unsupported-media-type", None),
        ("POST", "/v1/chat/completions", 415, "unsupported-media-type", None),
    ],
)
def test_all_refusals_have_one_shape(
    client: httpx.Client, method: str, path: str, status: int, slug: str, allow: str | None
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = ProblemBody.model_validate_json(answer.content, extra="forbid")
    assert problem.type == f"urn:vlm-captioning:problem:{slug}" and problem.title == TITLES[slug]
    assert problem.request_id == answer.headers["x-request-id"] and answer.headers["server-timing"]
    assert answer.headers.get("allow") == allow


def test_every_problem_has_a_title_and_an_example() -> None:
    """So that whoever adds an error to a route also says what it looks like."""
    inner = {
        "bad-bundle",
        "bad-settings",
        "deploy-failed",
        "not-registered",
        "port-in-use",
    }  # of commands, never of a request
    inner |= {"no-pictures", "output"}  # of the command that captions files
    inner |= {"client-gone"}  # nobody is there to read it
    slugs = {
        one.slug for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.ServingError)
    }
    assert slugs - inner <= set(TITLES)
    assert slugs - inner <= set(PROBLEM_DETAILS)


def test_statuses_of_an_error_and_all_below_it_are_described() -> None:
    assert list(problems(PictureError)) == [400, 413, 415, 500]
