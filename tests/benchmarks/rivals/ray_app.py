"""Ray Serve and the stock model, as its documentation writes it: one deployment, `@serve.batch`.

https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html
"""

import logging
import signal
from typing import Any

import ray
from PIL import Image
from ray import serve
from starlette.requests import Request

from tests.benchmarks.rivals.settings import RivalSettings
from tests.benchmarks.rivals.stock import StockCaptioner, decoded

settings = RivalSettings.from_environment()


@serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
class Captions:
    def __init__(self) -> None:
        self.captioner = StockCaptioner(settings.bundle, settings.threads, settings.dtype, settings.tokens)

    @serve.batch(max_batch_size=settings.max_batch_size, batch_wait_timeout_s=settings.batch_wait_s)
    async def caption(self, pictures: list[Image.Image]) -> list[str]:
        return self.captioner(pictures)

    async def __call__(self, request: Request) -> dict[str, str]:
        form = await request.form()
        upload: Any = form["file"]
        return {"caption": await self.caption(decoded(await upload.read()))}  # pyright: ignore[reportCallIssue]


if __name__ == "__main__":
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": settings.port})
    serve.run(Captions.bind(), route_prefix="/caption")  # pyright: ignore[reportAttributeAccessIssue]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
