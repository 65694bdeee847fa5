"""The HTTP application over a real captioner, in one process: the same routes that Ray Serve hosts."""

import base64
import json
import re
from pathlib import Path

import httpx
import pytest

from tests.serving import BAD, GOOD, make_client, make_service, noisy_jpeg
from tests.tiny import picture_bytes
from vlm_serving.bundle import open_bundle
from vlm_serving.images import decode_picture
from vlm_serving.service import CaptionService

PNG = picture_bytes(3)


@pytest.fixture(scope="module")
def service(bundle: Path) -> CaptionService:
    return make_service(bundle, max_pictures=4, max_picture_bytes=300_000, max_body_bytes=500_000)


@pytest.fixture(scope="module")
def client(service: CaptionService) -> httpx.Client:
    return make_client(service)


def problem_of(answer: httpx.Response) -> dict[str, object]:
    """The problem document, after checking what every one of them must have."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == answer.status_code
    assert body["type"] == "urn:vlm-captioning:problem:" + body["type"].rsplit(":", 1)[1]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"] and body["detail"]
    return body


def as_base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def test_multipart_json_and_raw_bodies_get_the_same_caption(client: httpx.Client, bundle: Path) -> None:
    answers = [
        client.post("/v1/captions", files=[("files", ("a.png", PNG))]),
        client.post("/v1/captions", json={"images": [as_base64(PNG)]}),
        client.post("/v1/captions", content=PNG, headers={"content-type": "image/png"}),
        client.post("/v1/captions", json={"images": [{"base64": "data:image/png;base64," + as_base64(PNG)["base64"]}]}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    captions = [answer.json()["captions"][0] for answer in answers]
    assert len({(caption["text"], caption["confidence"], caption["token_count"]) for caption in captions}) == 1
    version = open_bundle(bundle).version
    for answer in answers:
        assert answer.json()["model"] == {"name": "captioner", "version": version}
        assert answer.headers["x-model-version"] == version


def test_the_served_caption_is_the_golden_one(client: httpx.Client, bundle: Path) -> None:
    golden = json.loads((bundle / "golden.json").read_text())[0]
    answer = client.post("/v1/captions", content=(bundle / golden["picture"]).read_bytes(), headers=IMAGE)
    assert answer.json()["captions"][0]["text"] == golden["caption"]


IMAGE = {"content-type": "image/png"}


def test_an_answer_has_ids_confidence_and_times(client: httpx.Client) -> None:
    answer = client.post(
        "/v1/captions", files=[("files", PNG), ("files", noisy_jpeg())], headers={"x-request-id": "order-66"}
    )
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"] == "order-66"
    assert [caption["id"] for caption in body["captions"]] == ["order-66/0", "order-66/1"]
    assert all(0 < caption["confidence"] <= 1 and caption["token_count"] >= 1 for caption in body["captions"])
    times = body["timings_ms"]
    assert set(times) == {"decode", "queue", "caption", "total"}
    assert times["total"] >= times["caption"] > 0


def test_an_unusable_request_id_is_replaced(client: httpx.Client) -> None:
    answer = client.post("/v1/captions", content=PNG, headers={**IMAGE, "x-request-id": "a b" * 50})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.json()["request_id"])


def test_order_is_kept_and_neighbours_do_not_matter(client: httpx.Client) -> None:
    pictures = [picture_bytes(seed) for seed in range(4)]
    together = client.post("/v1/captions", files=[("files", data) for data in pictures]).json()["captions"]
    alone = [client.post("/v1/captions", content=data, headers=IMAGE).json()["captions"][0] for data in pictures]
    assert [caption["text"] for caption in together] == [caption["text"] for caption in alone]


def test_options_by_query_and_by_json(client: httpx.Client) -> None:
    by_query = client.post("/v1/captions?max_new_tokens=3&num_beams=2", content=PNG, headers=IMAGE)
    body = {"images": [as_base64(PNG)], "options": {"max_new_tokens": 3, "num_beams": 2}}
    by_json = client.post("/v1/captions", json=body)
    assert by_query.json()["captions"][0]["token_count"] <= 3
    assert by_query.json()["captions"][0]["text"] == by_json.json()["captions"][0]["text"]


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_picture_is_captioned(client: httpx.Client, name: str) -> None:
    answer = client.post("/v1/captions", files=[("files", (name, GOOD[name]))])
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["captions"]) == 1


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("form", ["multipart", "json", "raw"])
def test_a_bad_picture_is_named_and_never_a_500(client: httpx.Client, name: str, form: str) -> None:
    data, status, slug, text = BAD[name]
    if form == "multipart":
        answer = client.post("/v1/captions", files=[("files", ("good.png", PNG)), ("files", ("x.jpg", data))])
        where = "files[1] (x.jpg): "
    elif form == "json":
        answer = client.post("/v1/captions", json={"images": [as_base64(PNG), as_base64(data)]})
        where = "images[1]: "
    else:
        answer = client.post("/v1/captions", content=data, headers=IMAGE)
        where = "body: "
    body = problem_of(answer)
    assert (answer.status_code, str(body["type"]).rsplit(":", 1)[1]) == (status, slug), body
    assert re.search(text, str(body["detail"]))
    assert str(body["detail"]).startswith(where)
    assert body["picture_index"] == (0 if form == "raw" else 1)


JSON = {"content-type": "application/json"}
BOUNDARY = {"content-type": "multipart/form-data; boundary=x"}
BROKEN: dict[str, tuple[dict[str, object], int, str, str]] = {
    "text": ({"content": b"hi", "headers": {"content-type": "text/plain"}}, 415, "unsupported-media-type", "text/pl"),
    "no type": ({"content": b"hi"}, 415, "unsupported-media-type", "'missing'|missing"),
    "no json": ({"content": b"{", "headers": JSON}, 400, "malformed-request", "not JSON"),
    "json of deep lists": ({"content": b"[" * 100_000, "headers": JSON}, 400, "malformed-request", "not JSON"),
    "json not utf-8": ({"content": b'{"a": "\xff"}', "headers": JSON}, 400, "malformed-request", "not JSON"),
    "json list": ({"json": []}, 422, "bad-request", "the body"),
    "json null": ({"json": None, "content": b"null", "headers": JSON}, 422, "bad-request", "the body"),
    "no pictures": ({"json": {"images": []}}, 422, "bad-request", "images: List should have at least 1"),
    "picture not text": ({"json": {"images": [{"base64": 7}]}}, 422, "bad-request", "images.0.base64"),
    "unknown field": ({"json": {"images": [], "beams": 3}}, 422, "bad-request", "beams: Extra inputs"),
    "unknown option": (
        {"json": {"images": [as_base64(PNG)], "options": {"beams": 2}}}, 422, "bad-request", "options.beams",
    ),
    "too many pictures": ({"json": {"images": [as_base64(PNG)] * 5}}, 422, "bad-request", "5 pictures; the limit is 4"),
    "too many files": ({"files": [("files", PNG)] * 5}, 422, "bad-request", "limit is 4 pictures"),
    "another field": ({"files": [("file", PNG)]}, 422, "bad-request", "Unexpected form fields ..file.."),
    "a text field": ({"files": [("files", PNG)], "data": {"a": "b"}}, 422, "bad-request", "Unexpected form fields"),
    "no boundary": (
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "malformed-request", "boundary",
    ),
    "empty form": ({"content": b"--x--\r\n", "headers": BOUNDARY}, 422, "bad-request", "holds no pictures"),
    "no form at all": ({"content": b"not a form", "headers": BOUNDARY}, 400, "malformed-request", "multipart"),
    "too many tokens": (
        {"content": PNG, "headers": IMAGE, "params": {"max_new_tokens": 31}}, 422, "bad-request", "31; .* 1 to 30",
    ),
    "no beams": (
        {"content": PNG, "headers": IMAGE, "params": {"num_beams": 0}}, 422, "bad-request", "num_beams.*greater than",
    ),
    "beams in letters": (
        {"content": PNG, "headers": IMAGE, "params": {"num_beams": "two"}}, 422, "bad-request", "num_beams.*integer",
    ),
    "unknown parameter": (
        {"content": PNG, "headers": IMAGE, "params": {"beam": 2}}, 422, "bad-request", "Unknown query parameters",
    ),
    "large body": ({"content": b"1" * 500_001, "headers": JSON}, 413, "body-too-large", "500,001 bytes.*500,000"),
    "large stream": (
        {"content": iter([b"1" * 100_000] * 6), "headers": JSON}, 413, "body-too-large", "more than 500,000",
    ),
    "large form": ({"files": [("files", b"1" * 260_000)] * 2}, 413, "body-too-large", "500,000"),
    "large raw": ({"content": b"1" * 300_001, "headers": IMAGE}, 413, "picture-too-large", "300,001 bytes.*300,000"),
    "large picture": ({"files": [("files", b"1" * 300_001)]}, 413, "picture-too-large", "300,001 bytes.*300,000"),
    "bad base64": ({"json": {"images": [{"base64": "%%%"}]}}, 400, "bad-picture", r"images\[0\]: base64"),
    "cut base64": ({"json": {"images": [{"base64": "abcde"}]}}, 400, "bad-picture", r"images\[0\]: base64"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_request_is_explained_and_never_a_500(client: httpx.Client, name: str) -> None:
    arguments, status, slug, text = BROKEN[name]
    arguments = {key: value for key, value in arguments.items() if value is not None}
    answer = client.post("/v1/captions", **arguments)
    body = problem_of(answer)
    assert (answer.status_code, str(body["type"]).rsplit(":", 1)[1]) == (status, slug), body
    assert re.search(text, str(body["detail"]))


def test_long_file_names_are_cut(client: httpx.Client) -> None:
    answer = client.post("/v1/captions", files=[("files", ("n" * 500, b"no"))])
    detail = answer.json()["detail"]
    assert "n" * 80 in detail and "n" * 81 not in detail


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/v1/captions", 405)])
def test_unknown_addresses_and_methods_are_problems_too(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert problem_of(answer)["status"] == status
    assert status != 405 or answer.headers["allow"] == "POST"


def test_before_the_first_bundle_it_is_alive_but_not_ready() -> None:
    client = make_client(make_service(None))
    assert client.get("/healthz").status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.headers["retry-after"]) == (503, False, "2")
    answer = client.post("/v1/captions", content=PNG, headers=IMAGE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "No model serves yet" in str(problem_of(answer)["detail"])
    assert client.get("/v1/models").status_code == 503


def test_models_and_readiness_name_the_version(client: httpx.Client, bundle: Path) -> None:
    version = open_bundle(bundle).version
    assert client.get("/v1/models").json()["models"] == [{"name": "captioner", "version": version}]
    assert client.get("/v1/models").headers["x-model-version"] == version
    assert client.get("/readyz").json()["model"]["version"] == version


def test_an_unexpected_error_is_a_plain_500_with_its_request_id(bundle: Path) -> None:
    service = make_service(bundle)
    service.engine.submit = None  # type: ignore[attr-defined]
    answer = make_client(service).post("/v1/captions", content=PNG, headers=IMAGE)
    body = problem_of(answer)
    assert body["status"] == 500
    assert "NoneType" not in answer.text and str(body["request_id"]) in str(body["detail"])


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_are_whole_and_ask_nobody_else(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|@import|url\(["']?http""", answer.text)


def test_the_api_document_shows_every_way_in(client: httpx.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/captions"]["post"]
    content = operation["requestBody"]["content"]
    assert {"multipart/form-data", "application/json", "image/jpeg"} <= set(content)
    assert set(operation["responses"]) == {
        "200", "400", "401", "404", "408", "413", "415", "422", "429", "500", "503", "504",
    }  # fmt: skip
    example = content["application/json"]["example"]
    assert client.post("/v1/captions", json=example).status_code == 200


def test_requests_are_counted_by_status_and_reason(bundle: Path) -> None:
    service = make_service(bundle)
    client = make_client(service)
    client.post("/v1/captions", content=PNG, headers=IMAGE)
    client.post("/v1/captions", content=b"no", headers=IMAGE)
    client.get("/readyz")
    counts = service.meters.counts  # type: ignore[attr-defined]
    assert counts[("vlm_requests", "200")] == counts[("vlm_requests", "415")] == 1
    assert counts[("vlm_rejected", "unsupported-picture")] == 1
    assert counts[("vlm_pictures", service.slot.version)] == 1
    values = service.meters.values  # type: ignore[attr-defined]
    assert values[("vlm_batch_pictures",)] == [1]
    assert values[("vlm_stage_seconds", "total")][0] > 0


@pytest.mark.parametrize("way", ["query", "json"])
def test_explain_tells_each_words_confidence_and_where_the_model_looked(
    client: httpx.Client, service: CaptionService, way: str
) -> None:
    if way == "query":
        answer = client.post("/v1/captions?explain=true", content=PNG, headers=IMAGE)
    else:
        answer = client.post("/v1/captions", json={"images": [as_base64(PNG)], "options": {"explain": True}})
    caption = answer.json()["captions"][0]
    own = service.slot.current().caption([decode_picture(PNG)])[0]
    assert [(word["text"], word["confidence"]) for word in caption["words"]] == [
        (word.text, pytest.approx(word.probability, abs=1e-6)) for word in own.words
    ]
    grids = [word["heat"] for word in caption["words"]]
    assert {(len(grid), len(row)) for grid in grids for row in grid} == {(2, 2)}
    assert max(max(map(max, grid)) for grid in grids) == 255
    plain = client.post("/v1/captions?explain=false", content=PNG, headers=IMAGE).json()["captions"][0]
    assert "words" not in plain and (plain["text"], plain["confidence"]) == (caption["text"], caption["confidence"])


def test_explain_takes_yes_or_no(client: httpx.Client) -> None:
    problem = problem_of(client.post("/v1/captions?explain=perhaps", content=PNG, headers=IMAGE))
    assert problem["status"] == 422 and "explain: Input should be a valid boolean" in str(problem["detail"])
