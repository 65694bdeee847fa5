"""The bodies' promises: what is optional, what is refused, and that names stay."""

import pytest
from pydantic import ValidationError

from vlm_serving.problems import problem
from vlm_serving.schemas import CaptionRequestBody, CaptionResponse, OptionsBody, ProblemBody


def test_options_may_be_left_out() -> None:
    assert CaptionRequestBody(images=[{"base64": "aa"}]).options == OptionsBody()


@pytest.mark.parametrize("options", [{"num_beams": 0}, {"max_new_tokens": -1}, {"temperature": 1.0}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        OptionsBody(**options)


def test_field_names_are_a_promise() -> None:
    schema = CaptionResponse.model_json_schema()
    assert list(schema["properties"]) == ["request_id", "model", "captions", "timings_ms"]
    assert list(schema["$defs"]["CaptionBody"]["properties"]) == [
        "id", "text", "confidence", "token_count", "finish_reason", "alternatives", "embedding", "words",
    ]  # fmt: skip
    assert list(schema["$defs"]["TimingsBody"]["properties"]) == ["decode", "queue", "caption", "total"]


def test_a_problem_is_what_the_schema_says() -> None:
    answer = problem(503, "overloaded", "Too much.", "r1", {"picture_index": 2}, retry_s=7)
    body = ProblemBody.model_validate_json(bytes(answer.body))
    assert (body.status, body.title, body.picture_index) == (503, "Too many pictures are in work", 2)
    assert answer.headers["retry-after"] == "7"
