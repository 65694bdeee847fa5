"""Chat completions, asked for with OpenAI's own client, in one process."""

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.serving import make_client, make_service
from tests.tiny import picture_bytes
from vlm_serving.captioner import Caption
from vlm_serving.images import decode_picture
from vlm_serving.service import CaptionService
from vlm_serving.web import create_web

PNG, OTHER = picture_bytes(3), picture_bytes(8)


class InProcess(httpx2.BaseTransport):
    """Hands requests of OpenAI's client to the application, without a socket."""

    def __init__(self, service: CaptionService) -> None:
        self._asgi = httpx2.ASGITransport(create_web(lambda: service), raise_app_exceptions=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        async def exchange() -> httpx2.Response:
            answer = await self._asgi.handle_async_request(request)
            return httpx2.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run(exchange())


def openai_of(service: CaptionService) -> openai.OpenAI:
    http = httpx2.Client(transport=InProcess(service))
    return openai.OpenAI(base_url="http://captioner/v1", api_key="any", max_retries=0, http_client=http)


@pytest.fixture(scope="module")
def service(bundle: Path) -> CaptionService:
    return make_service(bundle, max_pictures=3)


@pytest.fixture(scope="module")
def client(service: CaptionService) -> Iterator[openai.OpenAI]:
    with openai_of(service) as made:
        yield made


def picture(data: bytes) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def ask(client: openai.OpenAI, *parts: dict[str, Any], **asked: Any) -> Any:
    return client.chat.completions.create(model="captioner", messages=[user(*parts)], **asked)


def own_caption(service: CaptionService, data: bytes, **options: Any) -> Caption:
    captioner = service.slot.current()
    return captioner.caption([decode_picture(data)], replace(captioner.options, **options))[0]


def test_openais_client_gets_a_caption(client: openai.OpenAI, service: CaptionService) -> None:
    words = {"type": "text", "text": "What is this?"}
    answer = ask(client, words, picture(PNG), temperature=0.7, seed=1, user="me", response_format={"type": "text"})
    own = own_caption(service, PNG)
    assert (answer.object, answer.model, answer.system_fingerprint) == (
        "chat.completion", "captioner", service.slot.version,
    )  # fmt: skip
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == (
        "assistant", own.text, own.finish_reason,
    )  # fmt: skip
    # patches of a 32 px picture by 16 px, the class token, the start token
    assert answer.usage.prompt_tokens == 6 and answer.usage.completion_tokens == own.token_count
    assert answer.usage.total_tokens == 6 + own.token_count


def test_its_id_is_the_requests_and_its_model_is_in_a_header(client: openai.OpenAI, service: CaptionService) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="captioner", messages=[user(picture(PNG))], extra_headers={"x-request-id": "order-66"}
    )
    assert (raw.parse().id, raw.headers["x-request-id"]) == ("order-66", "order-66")
    assert raw.headers["x-model-version"] == service.slot.version
    assert raw.headers["server-timing"].startswith("decode;dur=")


def test_several_pictures_are_lines_and_choices_are_ranks(client: openai.OpenAI, service: CaptionService) -> None:
    answer = ask(client, picture(PNG), picture(OTHER), n=3)
    own = [own_caption(service, data, num_beams=3, num_captions=3) for data in (PNG, OTHER)]
    ranked = [[caption.text for caption in own]] + [[one.alternatives[rank].text for one in own] for rank in (0, 1)]
    assert [choice.message.content for choice in answer.choices] == ["\n".join(texts) for texts in ranked]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    said = sum(one.token_count for caption in own for one in (caption, *caption.alternatives))
    assert answer.usage.completion_tokens == said and answer.usage.prompt_tokens == 12


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_caption_is_no_longer_than_asked_for(client: openai.OpenAI, service: CaptionService, name: str) -> None:
    cut = ask(client, picture(PNG), **{name: 2})
    assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (2, "length")
    uncut = ask(client, picture(PNG), **{name: 4096})  # more than the server allows: an upper bound, not a wish
    assert uncut.choices[0].message.content == own_caption(service, PNG).text


def test_our_own_options_come_by_extra_body(client: openai.OpenAI, service: CaptionService) -> None:
    asked = {"num_beams": 3, "min_new_tokens": 6, "prompt": "a green"}
    answer = ask(client, picture(PNG), extra_body=asked)
    assert answer.choices[0].message.content == own_caption(service, PNG, **asked).text


def test_only_the_last_user_message_is_captioned(client: openai.OpenAI, service: CaptionService) -> None:
    earlier = ask(client, picture(OTHER))
    history = [
        {"role": "system", "content": "You are terse."},
        user(picture(OTHER)),
        earlier.choices[0].message,  # as callers put it back
        user({"type": "text", "text": "And this?"}, picture(PNG)),
    ]
    answer = client.chat.completions.create(model="captioner", messages=history)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == own_caption(service, PNG).text


def test_a_stream_tells_the_same(client: openai.OpenAI, service: CaptionService) -> None:
    whole = ask(client, picture(PNG), n=2)
    told, reasons, usages = ["", ""], ["", ""], []
    for chunk in ask(client, picture(PNG), n=2, stream=True, stream_options={"include_usage": True}):
        assert (chunk.object, chunk.model) == ("chat.completion.chunk", "captioner")
        assert chunk.system_fingerprint == service.slot.version
        usages.append(chunk.usage)
        for choice in chunk.choices:
            told[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert told == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usages[:-1] == [None] * 6 and usages[-1] == whole.usage


def test_a_stream_ends_as_the_protocol_wants_it(service: CaptionService) -> None:
    body = {"model": "captioner", "messages": [user(picture(PNG))], "stream": True}
    answer = make_client(service).post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n") and '"usage"' not in answer.text


WRONG: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], str, str]] = {
    "no picture": (
        {"messages": [{"role": "user", "content": "hello"}]}, openai.UnprocessableEntityError, "bad-request",
        r"messages\[0\], holds no picture. Add a content part",
    ),
    "nobody asks": (
        {"messages": [{"role": "system", "content": "hello"}]}, openai.UnprocessableEntityError, "bad-request",
        "no message of the role user",
    ),
    "another model": (
        {"model": "gpt-4o"}, openai.NotFoundError, "unknown-model", "There is no model 'gpt-4o'; known are: captioner",
    ),
    "a web address": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "https://example.org/a.jpg"}})]},
        openai.UnprocessableEntityError, "url-refused", r"messages\[0\]\.content\[0\]: the URL begins with 'https://",
    ),
    "no picture's bytes": (
        {"messages": [user(picture(PNG), picture(b"text"))]}, openai.APIStatusError, "unsupported-picture",
        r"messages\[0\]\.content\[1\]: The bytes are not a readable picture",
    ),
    "no base64": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}})]},
        openai.BadRequestError, "bad-picture", "base64 cannot be decoded",
    ),
    "no comma": (
        {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/png"}})]},
        openai.BadRequestError, "bad-picture", "no comma",
    ),
    "a sound": (
        {"messages": [user({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})]},
        openai.UnprocessableEntityError, "bad-request", "'input_audio'.*expected tags",
    ),
    "tools": (
        {"tools": [{"type": "function", "function": {"name": "x"}}]}, openai.UnprocessableEntityError, "bad-request",
        "tools: Extra inputs are not permitted",
    ),
    "json": (
        {"response_format": {"type": "json_object"}}, openai.UnprocessableEntityError, "bad-request",
        "response_format.type: Input should be 'text', not 'json_object'",
    ),
    "too many choices": ({"n": 6}, openai.UnprocessableEntityError, "bad-request", "6; it must be 1 to 5"),
    "too many pictures": (
        {"messages": [user(*[picture(PNG)] * 4)]}, openai.UnprocessableEntityError, "bad-request",
        "4 pictures; the limit is 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_openais_client_raises_what_it_should(client: openai.OpenAI, name: str, stream: bool) -> None:
    changed, kind, code, text = WRONG[name]
    asked: dict[str, Any] = {"model": "captioner", "messages": [user(picture(PNG))], **changed}
    with pytest.raises(kind, match=text) as caught:
        client.chat.completions.create(stream=stream, **asked)
    assert (caught.value.code, caught.value.type) == (code, "invalid_request_error")
    problem = caught.value.response.json()
    assert caught.value.request_id == problem["request_id"]
    assert problem["error"]["message"] == problem["detail"]


def test_before_the_first_model_openais_client_may_try_again(bundle: Path) -> None:
    with openai_of(make_service(None)) as client, pytest.raises(openai.InternalServerError, match="No model serves"):
        ask(client, picture(PNG))


def test_openais_client_lists_and_finds_the_model(client: openai.OpenAI, service: CaptionService) -> None:
    (card,) = client.models.list().data
    assert (card.id, card.object, card.model_dump()["version"]) == ("captioner", "model", service.slot.version)
    assert client.models.retrieve("captioner") == client.models.retrieve(service.slot.version) == card
    with pytest.raises(openai.NotFoundError, match="There is no model 'other'"):
        client.models.retrieve("other")


def test_a_data_url_may_be_percent_encoded(service: CaptionService) -> None:
    encoded = "".join(f"%{byte:02x}" for byte in PNG)
    answer = make_client(service).post("/v1/captions", json={"images": [{"base64": f"data:image/png,{encoded}"}]})
    assert answer.json()["captions"][0]["text"] == own_caption(service, PNG).text
