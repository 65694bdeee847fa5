"""`/healthz`, `/readyz` and `/v1/models`: is it alive, does it answer, and with which model."""

import time
from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from vlm_serving.errors import NotReadyError, UnknownModelError
from vlm_serving.openapi import answer_example, problems
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
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        """503 until a bundle is loaded and its golden vectors are reproduced."""
        service = service_of()
        slot, state = service.slot, service.slot.state
        body = ReadyBody(
            ready=bool(slot.version),
            model=ModelBody(name=service.config.model_name, version=slot.version),
            replica=replica_of(),
            loading=state.loading,
            error=state.error,
            refused=state.refused,
        )
        headers = {"x-model-version": slot.version} if slot.version else {"retry-after": "2"}
        return JSONResponse(body.model_dump(), 200 if slot.version else 503, headers)

    @router.get(
        "/v1/models",
        summary="Which model answers",
        response_model=ModelsBody,
        responses=answer_example(MODELS_ANSWER) | problems(NotReadyError),
    )
    async def models(response: Response) -> ModelsBody:  # pyright: ignore[reportUnusedFunction]
        """The same twice: `models` by name and version, `data` as OpenAI's clients read it."""
        card = _card(service_of())
        response.headers["x-model-version"] = card.version
        return ModelsBody(models=[ModelBody(name=card.id, version=card.version)], data=[card])

    @router.get(
        "/v1/models/{name}",
        summary="One model, by its name or version",
        response_model=ModelCardBody,
        responses=answer_example(MODEL_ANSWER) | problems(NotReadyError, UnknownModelError),
    )
    async def model(name: str, response: Response) -> ModelCardBody:  # pyright: ignore[reportUnusedFunction]
        """As OpenAI's clients ask for it."""
        service = service_of()
        check_model(service, name)
        card = _card(service)
        response.headers["x-model-version"] = card.version
        return card

    return router


def check_model(service: CaptionService, name: str) -> None:
    """Raise UnknownModelError unless the model that answers has this name or version; NotReadyError without one."""
    version = service.slot.current().version
    if name not in (service.config.model_name, version):
        raise UnknownModelError(
            f"There is no model {name[:80]!r} here; there is {service.config.model_name!r}, version {version}."
        )


def _card(service: CaptionService) -> ModelCardBody:
    version = service.slot.current().version
    return ModelCardBody(id=service.config.model_name, version=version, created=STARTED_UNIX_S)
