"""`/healthz`, `/readyz` and `/v1/models`: is it alive, does it answer, and with which model."""

import time
from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from vlm_serving.errors import NotReadyError, UnknownModelError
from vlm_serving.exchange import ModelCard
from vlm_serving.openapi import GUARD, answer_example, problems
from vlm_serving.openapi_examples import MODEL_ANSWER, MODELS_ANSWER, READY_ANSWER
from vlm_serving.schemas import ModelBody, ModelCardBody, ModelsBody, ReadyBody, StatusBody
from vlm_serving.service import CaptionService

STARTED_UNIX_S = int(time.time())  # of this process


def models_router(service_of: Callable[[], CaptionService], replica_of: Callable[[], str]) -> APIRouter:
    """The routes over the service that `service_of` returns; `replica_of` names the replica."""
    router = APIRouter()

    @router.get(
        "/healthz",
        summary="Is the process alive?",
        response_model=StatusBody,
        responses=answer_example({"status": "ok"}) | problems(),
    )
    async def healthz() -> StatusBody:  # pyright: ignore[reportUnusedFunction]
        service_of().check_health()
        return StatusBody(status="ok")

    @router.get(
        "/readyz",
        summary="Can captions be had now?",
        response_model=ReadyBody,
        responses=answer_example(READY_ANSWER)
        | {503: {"model": ReadyBody, "description": "Not yet; the body tells why"}, 500: problems()[500]},
    )
    async def readyz(fresh: bool = False) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        """503 until a bundle is loaded and its golden vectors are reproduced. `fresh` wakes a replica that sleeps."""
        service = service_of()
        state = await service.state(fresh)
        card = state.cards.get(state.default)
        body = ReadyBody(
            ready=card is not None,
            model=ModelBody(name=state.default, version=card.version if card else ""),
            replica=state.replica or replica_of(),
            loading=state.loading,
            error=state.error,
            refused=state.refused,
        )
        headers = {"x-model-version": card.version} if card else {"retry-after": "2"}
        return JSONResponse(body.model_dump(), 200 if card else 503, headers)

    @router.get(
        "/v1/models",
        summary="Which models answer",
        response_model=ModelsBody,
        responses=answer_example(MODELS_ANSWER) | problems(*GUARD, NotReadyError),
    )
    async def models(response: Response) -> ModelsBody:  # pyright: ignore[reportUnusedFunction]
        """The first is the one that answers if a request names none. The same twice: `models` by name and version,
        `data` as OpenAI's clients read it.
        """
        state = await service_of().state()
        first = state.card()
        cards = [first, *(card for _, card in sorted(state.cards.items()) if card is not first)]
        response.headers["x-model-version"] = first.version
        return ModelsBody(
            models=[ModelBody(name=card.name, version=card.version) for card in cards],
            data=[_body(card) for card in cards],
        )

    @router.get(
        "/v1/models/{name}",
        summary="One model, by its name or version",
        response_model=ModelCardBody,
        responses=answer_example(MODEL_ANSWER) | problems(*GUARD, NotReadyError, UnknownModelError),
    )
    async def model(name: str, response: Response) -> ModelCardBody:  # pyright: ignore[reportUnusedFunction]
        """As OpenAI's clients ask for it."""
        service = service_of()
        card = await service.card(await model_named(service, name))
        response.headers["x-model-version"] = card.version
        return _body(card)

    return router


async def model_named(service: CaptionService, name: str) -> str:
    """The name of the model that is called so or has this version; `name` itself if none is known."""
    cards = (await service.state()).cards
    return next((card.name for card in cards.values() if name == card.version), name)


def _body(card: ModelCard) -> ModelCardBody:
    return ModelCardBody(id=card.name, version=card.version, created=STARTED_UNIX_S)
