"""Generation options over HTTP: each reaches the search, its bounds are in the API's description and in the problem."""

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes
from vlm_serving.bundle import read_generation, write_generation
from vlm_serving.captioner import Captioner
from vlm_serving.config import ServingConfig
from vlm_serving.errors import RequestError
from vlm_serving.generation import DEFAULT_OPTIONS, GenerationOptions
from vlm_serving.images import decode_picture
from vlm_serving.options import BOUNDS, chosen_options
from vlm_serving.schemas import AskedBody, OptionsBody
from vlm_serving.service import CaptionService

PNG = picture_bytes(3)
IMAGE = {"content-type": "image/png"}
ASKED: dict[str, dict[str, Any]] = {
    "fewest tokens": {"min_new_tokens": 9, "max_new_tokens": 12},
    "longer ones win": {"num_beams": 4, "length_penalty": 3.0},
    "shorter ones win": {"num_beams": 4, "length_penalty": -3.0},
    "no word twice": {"no_repeat_ngram_size": 1, "min_new_tokens": 12},
    "no repetition": {"repetition_penalty": 5.0},
    "a prompt": {"prompt": "a green"},
    "no prompt": {"prompt": ""},
    "all": {
        "num_beams": 3, "num_captions": 2, "min_new_tokens": 2, "max_new_tokens": 7, "length_penalty": 0.5,
        "no_repeat_ngram_size": 3, "repetition_penalty": 1.5, "prompt": "a",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def service(bundle: Path) -> CaptionService:
    return make_service(bundle)


@pytest.fixture(scope="module")
def client(service: CaptionService) -> httpx.Client:
    return make_client(service)


@pytest.fixture(scope="module")
def captioner(service: CaptionService) -> Captioner:
    return service.slot.current()


@pytest.mark.parametrize("name", ASKED)
def test_options_do_over_http_what_they_do_in_the_engine(client: httpx.Client, captioner: Captioner, name: str) -> None:
    asked = ASKED[name]
    by_query = client.post("/v1/captions", content=PNG, headers=IMAGE, params=asked)
    picture = {"base64": base64.b64encode(PNG).decode()}
    by_json = client.post("/v1/captions", json={"images": [picture], "options": asked})
    own = captioner.caption([decode_picture(PNG)], replace(captioner.options, **asked))[0]
    for answer in (by_query, by_json):
        caption = answer.json()["captions"][0]
        found = (caption["text"], caption["token_count"], caption["finish_reason"])
        assert found == (own.text, own.token_count, own.finish_reason)


def test_options_change_what_is_said(captioner: Captioner) -> None:
    """Or the test above could not fail."""
    picture = decode_picture(PNG)
    plain = captioner.caption([picture])[0].token_ids
    for name in ("fewest tokens", "shorter ones win", "no word twice", "no repetition", "a prompt"):
        said = captioner.caption([picture], replace(captioner.options, **ASKED[name]))[0].token_ids
        assert said != plain, name


def test_alternatives_come_best_first_and_bring_their_beams(client: httpx.Client, captioner: Captioner) -> None:
    answer = client.post("/v1/captions?num_captions=3", files=[("files", PNG), ("files", picture_bytes(8))])
    for caption, data in zip(answer.json()["captions"], (PNG, picture_bytes(8)), strict=True):
        own = captioner.caption([decode_picture(data)], replace(captioner.options, num_beams=3, num_captions=3))[0]
        told = [(one["text"], one["token_count"], one["finish_reason"]) for one in caption["alternatives"]]
        assert told == [(one.text, one.token_count, one.finish_reason) for one in own.alternatives]
        assert len(told) == 2 and all(0 < one["confidence"] <= 1 for one in caption["alternatives"])
        assert caption["text"] == own.text
    assert "alternatives" not in client.post("/v1/captions", content=PNG, headers=IMAGE).json()["captions"][0]


def test_a_caption_that_was_cut_off_says_so(client: httpx.Client) -> None:
    cut = client.post("/v1/captions?min_new_tokens=4&max_new_tokens=4", content=PNG, headers=IMAGE).json()["captions"]
    assert (cut[0]["finish_reason"], cut[0]["token_count"]) == ("length", 4)


def test_the_embedding_comes_if_it_is_asked_for(client: httpx.Client, captioner: Captioner) -> None:
    with_it = client.post("/v1/captions?return_embedding=true", content=PNG, headers=IMAGE).json()["captions"][0]
    own = captioner.caption([decode_picture(PNG)])[0].embedding
    assert with_it["embedding"] == pytest.approx(own.tolist(), abs=1e-6)
    without = client.post("/v1/captions?return_embedding=false", content=PNG, headers=IMAGE).json()["captions"][0]
    assert "embedding" not in without


def test_all_faults_are_told_at_once(client: httpx.Client) -> None:
    asked = {"max_new_tokens": 31, "num_beams": 6, "num_captions": 7}
    answer = client.post("/v1/captions", content=PNG, headers=IMAGE, params=asked)
    assert answer.status_code == 422
    assert answer.json()["detail"] == (
        "num_beams is 6; it must be 1 to 5; max_new_tokens is 31; it must be 1 to 30; num_captions is 7; it must be "
        "1 to 5; num_captions is 7; it must be at most num_beams, which is 6. Leave them out for the model's own."
    )


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_refused_at_either_end(client: httpx.Client, name: str) -> None:
    least, most = BOUNDS[name]
    for value, limit in ((least - 1, f"greater than or equal to {least}"), (most + 1, f"less than or equal to {most}")):
        answer = client.post("/v1/captions", content=PNG, headers=IMAGE, params={name: value})
        assert answer.status_code == 422
        assert f"{name}: Input should be {limit}, not '{value}'" in answer.json()["detail"]
    assert client.post("/v1/captions", content=PNG, headers=IMAGE, params={name: "nan"}).status_code == 422


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_beams": 2, "num_captions": 3}, "num_captions is 3; it must be at most num_beams, which is 2"),
        ({"min_new_tokens": 31}, "min_new_tokens is 31; it must be at most max_new_tokens, which is 30"),
        ({"length_penalty": 9.0}, "length_penalty is 9.0; it must be -5 to 5"),
    ],
)
def test_options_that_contradict_each_other_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        chosen_options(asked, DEFAULT_OPTIONS, ServingConfig())


def test_what_was_not_asked_for_gives_way() -> None:
    own = GenerationOptions(max_new_tokens=20, num_beams=4, min_new_tokens=6, num_captions=2)
    config = ServingConfig(max_num_beams=2, max_new_tokens=10)
    assert chosen_options({"max_new_tokens": 3}, own, config) == replace(own, max_new_tokens=3, min_new_tokens=3)
    assert chosen_options({"num_beams": 1}, own, config) == replace(own, num_beams=1, num_captions=1)
    assert chosen_options({"num_captions": 4}, own, config) == replace(own, num_captions=4)
    assert chosen_options({"num_beams": 4, "max_new_tokens": 20}, own, config) == own  # the model's own is no excess


def test_a_prompt_without_room_is_refused_with_the_room_there_is(client: httpx.Client) -> None:
    files = [("files", PNG), ("files", picture_bytes(8))]
    answer = client.post("/v1/captions", files=files, params={"prompt": "a red square " * 3})
    assert answer.status_code == 422
    assert "prompt has 9 tokens; beside 16 new ones the model has room for 7. Shorten it" in answer.json()["detail"]
    short = client.post("/v1/captions", files=files, params={"prompt": "a red square " * 3, "max_new_tokens": 4})
    assert short.status_code == 200, short.text


def test_a_requests_prompt_replaces_the_bundles(bundle: Path) -> None:
    service = make_service(bundle)
    captioner = service.slot.current()
    by_request = captioner.caption([decode_picture(PNG)], replace(captioner.options, prompt="a green"))[0]
    captioner.prompt_ids = captioner.tokenizer.encode("a green", add_special_tokens=False)
    assert captioner.caption([decode_picture(PNG)])[0].token_ids == by_request.token_ids
    explained = client_caption(service, {"prompt": "a green", "explain": "true"})
    assert explained["text"] == by_request.text and len(explained["words"]) == len(explained["text"].split())


def client_caption(service: CaptionService, asked: dict[str, Any]) -> dict[str, Any]:
    return make_client(service).post("/v1/captions", content=PNG, headers=IMAGE, params=asked).json()["captions"][0]


def test_a_requests_prompt_is_never_kept_with_a_model(tmp_path: Path) -> None:
    write_generation(tmp_path, "a photo of", GenerationOptions(max_new_tokens=5, prompt="a red"))
    assert read_generation(tmp_path) == ("a photo of", GenerationOptions(max_new_tokens=5))


def test_the_description_has_every_option_with_its_bounds(bundle: Path) -> None:
    client = make_client(make_service(bundle, max_new_tokens=12, max_num_beams=4, max_pictures=3))
    document = client.get("/openapi.json").json()
    parameters = document["paths"]["/v1/captions"]["post"]["parameters"]
    in_query = {one["name"]: one["schema"] for one in parameters if one["in"] == "query"}
    in_json = document["components"]["schemas"]["OptionsBody"]["properties"]
    assert set(in_json) == set(OptionsBody.model_fields) and set(in_query) == set(AskedBody.model_fields)
    assert all(one["description"] for one in parameters)
    most = {"max_new_tokens": 12, "num_beams": 4, "num_captions": 4, **{name: top for name, (_, top) in BOUNDS.items()}}
    for name, top in most.items():
        assert in_query[name]["maximum"] == in_json[name]["anyOf"][0]["maximum"] == top
        assert in_query[name]["minimum"] == in_json[name]["anyOf"][0]["minimum"]
    assert document["components"]["schemas"]["CaptionRequestBody"]["properties"]["images"]["maxItems"] == 3


def test_numbers_in_json_are_numbers(client: httpx.Client) -> None:
    picture = {"base64": base64.b64encode(PNG).decode()}
    for options in ({"num_beams": "2"}, {"num_beams": True}, {"length_penalty": "1"}, {"explain": 1}):
        answer = client.post("/v1/captions", json={"images": [picture], "options": options})
        assert answer.status_code == 422, options
    whole = client.post("/v1/captions", json={"images": [picture], "options": {"length_penalty": 1}})
    assert whole.status_code == 200  # a whole number is a number


def test_times_are_in_a_header_of_every_answer(client: httpx.Client) -> None:
    answer = client.post("/v1/captions", content=PNG, headers=IMAGE)
    assert [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")] == [
        "decode", "queue", "caption", "total",
    ]  # fmt: skip
    assert client.get("/nowhere").headers["server-timing"].startswith("total;dur=")
