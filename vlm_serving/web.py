"""The HTTP face: FastAPI routes over a CaptionService, without a word of Ray: it runs in a test as it does live."""

import re
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_serving.captioner import Caption
from vlm_serving.errors import ServingError
from vlm_serving.intake import read_request
from vlm_serving.openapi import CAPTIONS_OPENAPI, PROBLEM_RESPONSES
from vlm_serving.problems import problem, problem_of
from vlm_serving.schemas import CaptionBody, CaptionResponse, ModelBody, ModelsBody, ReadyBody, TimingsBody, WordBody
from vlm_serving.service import Answer, CaptionService, caption_id
from vlm_serving.telemetry import LOGGER, log_event

PAGES = Path(__file__).parent / "playground"
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
QUIET = {"/healthz", "/readyz"}  # probes: asked every few seconds, not worth a log line each


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
        version=_package_version(),
        summary="Pictures in, captions out.",
        description="Every answer names the model version that gave it. Errors are RFC 9457 problem documents.",
    )
    web.add_exception_handler(ServingError, _on_serving_error)
    web.add_exception_handler(HTTPException, _on_http_exception)
    web.add_middleware(Envelope, service_of=service_of, own_request_id=own_request_id)
    _add_captions(web, service_of)
    _add_probes(web, service_of, replica_of)

    @web.get("/", include_in_schema=False)
    async def playground() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return _page("index.html")

    @web.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return _page("docs.html")

    return web


def _page(name: str) -> HTMLResponse:
    return HTMLResponse((PAGES / name).read_text(encoding="utf-8"), headers=PAGE_HEADERS)


def _add_captions(web: FastAPI, service_of: Callable[[], CaptionService]) -> None:
    @web.post(
        "/v1/captions",
        summary="Caption one or more pictures",
        response_model=CaptionResponse,
        openapi_extra=CAPTIONS_OPENAPI,
        responses=PROBLEM_RESPONSES,
    )
    async def captions(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """All pictures of a request are captioned, or none: the problem then names the first that cannot be read."""
        started_s = time.perf_counter()
        service = service_of()
        service.slot.current()  # without a model there is no point in reading the body
        uploads, options = await read_request(request, service.config)
        request_id: str = request.state.request_id
        asked = options.model_dump(exclude_none=True)
        explain = asked.pop("explain", False)
        answer = await service.caption(uploads, request_id, asked, explain=explain)
        body = _response(answer, service.config.model_name, request_id, started_s)
        return JSONResponse(body.model_dump(exclude_none=True), headers={"x-model-version": answer.version})

    @web.get("/v1/models", summary="Which model answers", response_model=ModelsBody)
    async def models() -> ModelsBody:  # pyright: ignore[reportUnusedFunction]
        service = service_of()
        version = service.slot.current().version
        return ModelsBody(models=[ModelBody(name=service.config.model_name, version=version)])


def _add_probes(web: FastAPI, service_of: Callable[[], CaptionService], replica_of: Callable[[], str]) -> None:
    @web.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        service_of().check_health()
        return {"status": "ok"}

    @web.get("/readyz", summary="Can captions be had now?", response_model=ReadyBody, responses={503: {}})
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


def _response(answer: Answer, model_name: str, request_id: str, started_s: float) -> CaptionResponse:
    """Times as the caller sees them: `decode` includes reading the body."""
    total_ms = 1000 * (time.perf_counter() - started_s)
    count = len(answer.captions)
    return CaptionResponse(
        request_id=request_id,
        model=ModelBody(name=model_name, version=answer.version),
        captions=[
            CaptionBody(
                id=caption_id(request_id, index, count),
                text=caption.text,
                confidence=round(min(1.0, max(0.0, caption.confidence)), 6),
                token_count=caption.token_count,
                words=_words(caption),
            )
            for index, caption in enumerate(answer.captions)
        ],
        timings_ms=TimingsBody(
            decode=round(answer.decode_ms + total_ms - answer.total_ms, 3),
            queue=round(answer.queue_ms, 3),
            caption=round(answer.caption_ms, 3),
            total=round(total_ms, 3),
        ),
    )


def _words(caption: Caption) -> list[WordBody] | None:
    if caption.heat is None:
        return None
    return [
        WordBody(text=word.text, confidence=round(min(1.0, word.probability), 6), heat=grid.tolist())
        for word, grid in zip(caption.words, caption.heat, strict=True)
    ]


async def _on_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    request.state.reason = error.slug
    return problem_of(error, request.state.request_id)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405 in the same shape."""
    assert isinstance(error, HTTPException)
    slug = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    request.state.reason = slug
    detail = f"{request.method} {request.url.path}: {error.detail}. See /docs."
    answer = problem(error.status_code, slug, detail, request.state.request_id)
    answer.headers.update(error.headers or {})
    return answer


class Envelope:
    """Gives each request an id, counts and logs its answer, and turns what nobody expected into a plain 500 problem."""

    def __init__(self, app: ASGIApp, service_of: Callable[[], CaptionService], own_request_id: bool) -> None:
        self._app = app
        self._service_of = service_of
        self._own_request_id = own_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started_s = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(scope)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._own_request_id:
                    message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            LOGGER.exception("request failed", extra={"fields": {"request_id": request_id}})
            state["reason"] = "internal-error"
            if status == 0:  # nothing sent yet
                detail = f"An unexpected error; the log has it under request id {request_id}. Report it."
                await problem(500, "internal-error", detail, request_id)(scope, receive, send_with_id)
        finally:
            self._record(scope, status, started_s)

    def _record(self, scope: Scope, status: int, started_s: float) -> None:
        state = scope["state"]
        reason = state.get("reason", "")
        meters = self._service_of().meters
        if scope["path"] not in QUIET:
            meters.count("vlm_requests", status=str(status))
            log_event(
                "request",
                request_id=state["request_id"],
                method=scope["method"],
                path=scope["path"],
                status=status,
                reason=reason,
                duration_ms=round(1000 * (time.perf_counter() - started_s), 1),
            )
        if reason:
            meters.count("vlm_rejected", reason=reason)


def _request_id(scope: Scope) -> str:
    """The caller's id if it is a sane one, else a new one."""
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _package_version() -> str:
    try:
        return version("vlm-captioning")
    except PackageNotFoundError:
        return "0"
