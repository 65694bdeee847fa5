"""BentoML and the stock model, adaptive batching on (https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html).

Started as `bentoml serve tests.benchmarks.rivals.bento_app:Captions`.
"""

from typing import Any

import bentoml as library  # pyright: ignore[reportMissingImports]
from PIL.Image import Image

from tests.benchmarks.rivals.settings import RivalSettings
from tests.benchmarks.rivals.stock import StockCaptioner

bentoml: Any = library
settings = RivalSettings.from_environment()
LONGEST_MS = 60_000  # beyond it BentoML refuses; at its default of 60 s


@bentoml.service(workers=1, traffic={"timeout": 120, "max_concurrency": 1000})
class Captions:
    def __init__(self) -> None:
        self.captioner = StockCaptioner(settings.bundle, settings.threads, settings.dtype, settings.tokens)

    @bentoml.api(route="/caption", batchable=True, max_batch_size=settings.max_batch_size, max_latency_ms=LONGEST_MS)
    def caption(self, pictures: list[Image]) -> list[str]:
        return self.captioner([picture.convert("RGB") for picture in pictures])
