"""The HTTP face: FastAPI routes over a CaptionService, without a word of Ray: it runs in a test as it does live."""

from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from vlm_serving.ecs import package_version
from vlm_serving.envelope import Envelope
from vlm_serving.errors import RequestError, ServingError
from vlm_serving.intake import fault
from vlm_serving.openapi import describe
from vlm_serving.pages import page
from vlm_serving.problems import problem, problem_of
from vlm_serving.routes_captions import captions_router
from vlm_serving.routes_chat import chat_router
from vlm_serving.routes_feedback import feedback_router
from vlm_serving.routes_metrics import metrics_router
from vlm_serving.routes_models import models_router
from vlm_serving.security import Guard
from vlm_serving.service import CaptionService


def create_web(
    service_of: Callable[[], CaptionService], *, replica_of: Callable[[], str] = str, own_request_id: bool = True
) -> FastAPI:
    """The application over the service that `service_of` returns at each request.

    `own_request_id=False` where a proxy in front writes the `x-request-id` header of answers, as Ray Serve's does.
    """
    web = FastAPI(
        docs_url=None,  # FastAPI's own page loads its script from elsewhere: blank on a machine without the internet
        redoc_url=None,
        title="Image captions",
        version=package_version(),
        summary="Pictures in, captions out.",
        description="Every answer names the model version that gave it. Errors are RFC 9457 problem documents.",
    )
    web.add_exception_handler(ServingError, _on_serving_error)
    web.add_exception_handler(RequestValidationError, _on_validation_error)
    web.add_exception_handler(HTTPException, _on_http_exception)
    web.add_middleware(Guard, config_of=lambda: service_of().config)
    web.add_middleware(Envelope, service_of=service_of, own_request_id=own_request_id)
    web.include_router(captions_router(service_of))
    web.include_router(chat_router(service_of))
    web.include_router(feedback_router(service_of))
    web.include_router(metrics_router(service_of))
    web.include_router(models_router(service_of, replica_of))
    describe(web, service_of)

    @web.get("/", include_in_schema=False)
    async def playground() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return page("index.html")

    @web.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return page("docs.html")

    return web


async def _on_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    request.state.reason = error.slug
    return problem_of(error, request.state.request_id)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """FastAPI's own 422, of parameters that it reads itself, in the same shape."""
    assert isinstance(error, RequestValidationError)
    faults = [fault(one, "the request") for one in error.errors()[:5]]
    return await _on_serving_error(request, RequestError(f"{'; '.join(faults)}. See /docs for the form."))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405 in the same shape."""
    assert isinstance(error, HTTPException)
    slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    request.state.reason = slug
    detail = f"{request.method} {request.url.path}: {error.detail}. See /docs."
    answer = problem(error.status_code, slug, detail, request.state.request_id)
    answer.headers.update(error.headers or {})
    return answer
