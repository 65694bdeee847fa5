"""The client against the real application in the same process, and the command line that uses it."""

import asyncio
import email.utils
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.serving import InProcess, make_service
from tests.tiny import picture_bytes
from vlm_serving.client import AsyncCaptionClient, CaptionClient, CaptionResult, Options
from vlm_serving.client_calls import LONGEST_PAUSE_S, Pause, Send, feedback_steps, models_steps
from vlm_serving.errors import CaptionRequestError
from vlm_serving.schemas import OptionsBody
from vlm_serving.web import create_web


class Flaky(httpx.BaseTransport):
    """Gives these answers first, or raises them; whatever is asked later goes on to the application."""

    def __init__(self, bundle: Path, *first: httpx.Response | Exception) -> None:
        self.first = list(first)
        self.application = InProcess(make_service(bundle))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not self.first:
            return self.application.handle_request(request)
        answer = self.first.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def client_of(bundle: Path | None, retries: int = 0, **settings: object) -> CaptionClient:
    return CaptionClient("http://captioner/", transport=InProcess(make_service(bundle, **settings)), retries=retries)


def busy(status: int = 503, retry_after: str = "0") -> httpx.Response:
    return httpx.Response(status, headers={"retry-after": retry_after}, json={"detail": "Too much."})


def test_files_and_bytes_are_captioned_in_order_over_several_requests(bundle: Path, tmp_path: Path) -> None:
    client = client_of(bundle)
    file = tmp_path / "a.png"
    file.write_bytes(picture_bytes(0))
    results = client.caption([file, *(picture_bytes(seed) for seed in range(1, 40))])
    assert len(results) == 40
    assert len({result.request_id for result in results}) == 2
    assert len({result.caption_id for result in results}) == 40
    assert results[0].text == client.caption([picture_bytes(0)])[0].text
    assert results[0].model_version == client.model_version()
    assert client.ready()


def test_no_pictures_are_no_request(bundle: Path) -> None:
    assert client_of(bundle).caption([]) == []


def test_options_reach_the_model(bundle: Path) -> None:
    assert client_of(bundle).caption([picture_bytes(0)], max_new_tokens=2, num_beams=3)[0].token_count <= 2


def test_a_refusal_carries_the_servers_reason(bundle: Path) -> None:
    with pytest.raises(
        CaptionRequestError, match=r"answered 415: files\[0\] \(picture-0\): The bytes are not"
    ) as caught:
        client_of(bundle).caption([b"no"])
    assert (caught.value.status, caught.value.problem["picture_index"]) == (415, 0)


def test_not_ready(bundle: Path) -> None:
    client = client_of(None)
    assert not client.ready()
    with pytest.raises(CaptionRequestError, match="No model serves yet"):
        client.model_version()


def test_nobody_there() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    with CaptionClient("http://captioner", transport=httpx.MockTransport(refuse), retries=0) as client:
        assert not client.ready()
        with pytest.raises(
            CaptionRequestError, match=r"http://captioner cannot be reached .*refused.*Is the server up"
        ):
            client.caption([b"x"])


def test_a_busy_server_and_one_that_is_not_there_yet_are_asked_again(bundle: Path) -> None:
    transport = Flaky(bundle, busy(503), busy(429))
    client = CaptionClient("http://captioner", transport=transport, retries=2)
    assert client.caption([picture_bytes(0)])[0].text == client_of(bundle).caption([picture_bytes(0)])[0].text
    transport.first = [busy(), busy(), busy()]
    with pytest.raises(CaptionRequestError, match="http://captioner/v1/captions answered 503: Too much") as caught:
        client.caption([picture_bytes(0)])
    assert (caught.value.status, caught.value.problem) == (503, {"detail": "Too much."})


@pytest.mark.parametrize("answer", [httpx.Response(500), httpx.Response(401), httpx.ReadTimeout("slow")])
def test_what_will_not_pass_is_not_tried_again(bundle: Path, answer: httpx.Response | Exception) -> None:
    transport = Flaky(bundle, answer)
    with pytest.raises(CaptionRequestError):
        CaptionClient("http://captioner", transport=transport, retries=3).models()
    assert CaptionClient("http://captioner", transport=transport).models()[0].name == "captioner"


def pauses(answers: list[httpx.Response | httpx.HTTPError]) -> list[float]:
    """How long the client waits after each of these answers."""
    steps = models_steps(len(answers))
    found: list[float] = []
    sent = next(steps)
    for answer in answers:
        assert isinstance(sent, Send)
        if isinstance(answer, httpx.Response):
            answer.request = httpx.Request("GET", "http://captioner/v1/models")
        pause = steps.send(answer)
        assert isinstance(pause, Pause)
        found.append(pause.seconds)
        sent = next(steps)
    return found


def test_the_pause_is_what_the_server_asks_for(bundle: Path) -> None:
    date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    seven, until, long = pauses([busy(retry_after="7"), busy(retry_after=date), busy(retry_after="9999")])
    assert 7 <= seven <= 7.7
    assert 18 <= until <= 22
    assert long == LONGEST_PAUSE_S


def test_else_it_doubles_with_some_chance_in_it() -> None:
    found = pauses([httpx.ConnectError("refused"), busy(retry_after="soon"), *[httpx.ConnectError("refused")] * 10])
    for attempt, pause_s in enumerate(found):
        whole = min(0.5 * 2**attempt, LONGEST_PAUSE_S)
        assert whole / 2 <= pause_s <= whole


def test_a_correction_is_sent_as_the_server_takes_it(bundle: Path) -> None:
    steps = feedback_steps("one/0", "a red coat", rating=2, reason="", retries=3)
    sent = next(steps)
    assert isinstance(sent, Send) and (sent.method, sent.path) == ("POST", "/v1/feedback")
    assert sent.arguments == {"json": {"id": "one/0", "caption": "a red coat", "rating": 2}}
    lost = httpx.ReadError("reset", request=httpx.Request("POST", "http://captioner/v1/feedback"))
    assert isinstance(steps.send(lost), Pause)  # the server keeps it once, however often it comes


def test_explained_captions_carry_words_with_their_maps(bundle: Path) -> None:
    plain, told = (client_of(bundle).caption([picture_bytes(0)], explain=explain)[0] for explain in (False, True))
    assert plain.words == () and plain.text == told.text == " ".join(word.text for word in told.words)
    assert all(len(word.heat) == 2 and len(word.heat[0]) == 2 for word in told.words)


def test_every_option_of_the_api_is_one_of_the_clients() -> None:
    assert set(OptionsBody.model_fields) <= set(Options.__annotations__)


def test_the_key_goes_with_every_call() -> None:
    seen: list[str | None] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"models": []})

    for key in ("s3cret", ""):
        CaptionClient("http://captioner", api_key=key, transport=httpx.MockTransport(note)).models()
    assert seen == ["Bearer s3cret", None]


def test_the_async_client_says_the_same(bundle: Path) -> None:
    async def ask() -> list[CaptionResult]:
        transport = httpx.ASGITransport(create_web(lambda: service))
        async with AsyncCaptionClient("http://captioner", transport=transport) as client:
            assert (await client.models())[0].version == service.slot.version
            with pytest.raises(CaptionRequestError, match="answered 415"):
                await client.caption([b"no"])
            return await client.caption([picture_bytes(0), picture_bytes(1)], num_beams=3)

    service = make_service(bundle)
    texts = [result.text for result in asyncio.run(ask())]
    assert texts == [one.text for one in client_of(bundle).caption([picture_bytes(0), picture_bytes(1)], num_beams=3)]


def test_the_key_of_the_environment_is_sent_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200)

    for variable, given in (("", ""), ("vlm_of_the_environment", ""), ("vlm_of_the_environment", "vlm_given")):
        monkeypatch.setenv("VLM_API_KEY", variable)
        assert CaptionClient("http://captioner", api_key=given, transport=httpx.MockTransport(answer)).ready()
    assert seen == [None, "Bearer vlm_of_the_environment", "Bearer vlm_given"]
