"""What surrounds every request: its id, its count, its log line, its time, and the answer to what nobody expected."""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_serving.problems import problem
from vlm_serving.schemas import TimingsBody
from vlm_serving.service import CaptionService
from vlm_serving.telemetry import LOGGER, log_event

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HOLDS_HEADER = b"x-vlm-holds"  # for HAProxy, which refuses what is more and drops it: haproxy_rules.cfg
QUIET = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds by machines: not worth a log line each


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
                headers = [
                    (b"server-timing", _server_timing(state.get("timings_ms"), started_s).encode()),
                    (HOLDS_HEADER, str(self._service_of().admission.most_requests).encode()),
                ]
                if self._own_request_id:
                    headers.append((b"x-request-id", request_id.encode()))
                message["headers"] = [*message["headers"], *headers]
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
                caller=state.get("caller", ""),
                method=scope["method"],
                path=_known_path(scope),
                status=status,
                reason=reason,
                duration_ms=1000 * (time.perf_counter() - started_s),
            )
        if reason:
            meters.count("vlm_rejected", reason=reason)


def _known_path(scope: Scope) -> str:
    """The path if there is a route for it; in one that nobody knows a stranger may have written anything, a key too."""
    known = "endpoint" in scope or any(route.matches(scope)[0] != Match.NONE for route in scope["app"].routes)
    return scope["path"] if known else ""


def _request_id(scope: Scope) -> str:
    """The caller's id if it is a sane one, else a new one."""
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _server_timing(stages: TimingsBody | None, started_s: float) -> str:
    """The header's text (W3C Server Timing), milliseconds until the answer began; browsers' network panels draw it."""
    times = {} if stages is None else stages.model_dump(exclude={"total"})
    times["total"] = round(1000 * (time.perf_counter() - started_s), 3)
    return ", ".join(f"{name};dur={value}" for name, value in times.items())
