"""The hop to a model replica, by a handle that answers as told: replicas that die, full queues, callers that leave."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from vlm_serving.errors import NotReadyError, OverloadedError, UnknownModelError
from vlm_serving.exchange import CaptionJob, EngineState, JobResult, ModelCard
from vlm_serving.generation import DEFAULT_OPTIONS
from vlm_serving.preprocessing import PreprocessingContract
from vlm_serving.remote import RemoteEngine

CONTRACT = PreprocessingContract(image_size_px=32, bos_token_id=1, eos_token_id=2, pad_token_id=0)
OLD, NEW = (ModelCard("captioner", version, CONTRACT, DEFAULT_OPTIONS) for version in ("old", "new"))
SHOES = ModelCard("shoes", "s", CONTRACT, DEFAULT_OPTIONS)


class Response:
    """What `remote` returns: awaitable, and can be cancelled."""

    def __init__(self, answer: Callable[[], Awaitable[Any]]) -> None:
        self.answer = answer
        self.cancelled = False

    def __await__(self):
        return self.answer().__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Gives one answer after the other; exceptions are raised. Remembers which model was asked for by name."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.responses: list[Response] = []
        self.named: list[str] = []
        self.caption = self.state = self

    def options(self, multiplexed_model_id: str) -> "Handle":
        self.named.append(multiplexed_model_id)
        return self

    def remote(self, *arguments: Any) -> Response:
        answer = self.answers.pop(0)

        async def give() -> Any:
            if answer is None:
                await asyncio.sleep(60)
            if isinstance(answer, BackPressureError | DeploymentUnavailableError | ActorDiedError):
                raise answer
            return answer

        self.responses.append(Response(give))
        return self.responses[-1]


def captioned(handle: Handle, card: ModelCard = OLD) -> JobResult:
    return asyncio.run(RemoteEngine(handle, "captioner").caption(CaptionJob(card, {}, ["x"])))


def test_a_job_goes_to_another_replica_when_its_own_dies() -> None:
    handle = Handle(ActorDiedError(), ActorDiedError(), JobResult(OLD))
    assert captioned(handle) == JobResult(OLD)


def test_a_job_that_kills_every_replica_is_given_up() -> None:
    handle = Handle(*[ActorDiedError()] * 3, JobResult(OLD))
    with pytest.raises(ActorDiedError):
        captioned(handle)
    assert len(handle.answers) == 1


@pytest.mark.parametrize(
    ("told", "error", "text"),
    [
        (BackPressureError(num_queued_requests=9, max_queued_requests=8), OverloadedError, "Try again in 2 s"),
        (DeploymentUnavailableError("d"), NotReadyError, "No model replica can be started"),
        (UnknownModelError("There is no model 'x'"), UnknownModelError, "no model 'x'"),
        (TimeoutError("late"), TimeoutError, "late"),
    ],
)
def test_what_serve_and_the_replica_refuse_is_said_in_our_words(told: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        captioned(Handle(told))


def test_a_caller_that_leaves_cancels_its_job() -> None:
    handle = Handle(None)

    async def scene() -> None:
        asking = asyncio.create_task(RemoteEngine(handle, "captioner").caption(CaptionJob(OLD, {}, ["x"])))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scene())
    assert handle.responses[0].cancelled


def test_an_answer_by_a_new_model_renews_what_is_known_without_asking() -> None:
    handle = Handle(EngineState("captioner", {"captioner": OLD, "shoes": SHOES}, replica="r1"), JobResult(NEW))
    engine = RemoteEngine(handle, "captioner")

    async def scene() -> EngineState:
        await engine.state()
        await engine.caption(CaptionJob(OLD, {}, ["x"]))
        return await engine.state()

    state = asyncio.run(scene())
    assert (state.cards, state.replica) == ({"captioner": NEW, "shoes": SHOES}, "r1")
    assert len(handle.responses) == 2


def test_models_by_name_go_to_the_replicas_that_have_them() -> None:
    handle = Handle(JobResult(SHOES), JobResult(OLD))
    captioned(handle, SHOES)
    captioned(handle, OLD)
    assert handle.named == ["shoes"]
