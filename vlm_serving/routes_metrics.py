"""`GET /metrics`: this process's numbers for Prometheus."""

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import Response

from vlm_serving.errors import MetricsOffError
from vlm_serving.openapi import GUARD, problems
from vlm_serving.openapi_examples import METRICS_ANSWER
from vlm_serving.prometheus_meters import MEDIA_TYPE, PrometheusMeters
from vlm_serving.service import CaptionService


class MetricsResponse(Response):
    """Prometheus' text format."""

    media_type = MEDIA_TYPE


def metrics_router(service_of: Callable[[], CaptionService]) -> APIRouter:
    """The route over the service that `service_of` returns."""
    router = APIRouter()

    @router.get(
        "/metrics",
        summary="This replica's numbers, for Prometheus",
        response_class=MetricsResponse,
        responses={200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": METRICS_ANSWER}}}}
        | problems(*GUARD, MetricsOffError),
    )
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Of the one replica that answers. Where there are several, let Prometheus scrape Ray's port: it has all."""
        meters = service_of().meters
        if not isinstance(meters, PrometheusMeters):
            raise MetricsOffError(f"Numbers are kept elsewhere: {type(meters).__name__}. Start with PrometheusMeters.")
        return MetricsResponse(meters.exposition())

    return router
