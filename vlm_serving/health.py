"""Is the model still the one that was checked when it was loaded? A golden picture asks it, now and then."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from vlm_serving.captioner import Caption, Captioner
from vlm_serving.errors import BundleError, ServingError

CaptionOne = Callable[[NDArray[np.uint8], Captioner], Awaitable[Caption | ServingError]]


class GoldenProbe:
    """Captions the first golden picture every `period_s` seconds (0: never), as one more picture of some batch.

    Nobody waits for it: under load it stands in the queue like all others. `check` tells how the last one ended.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._due_s = time.monotonic() + period_s
        self._task: asyncio.Task[None] | None = None
        self._failure: ServingError | None = None

    def check(self) -> None:
        """Raise what the last probe found wrong."""
        if self._failure is not None:
            raise self._failure

    def start_if_due(self, captioner: Captioner, caption_one: CaptionOne) -> None:
        """Start a probe of `captioner` if it is time to and none is under way. To be called in the event loop."""
        running = self._task is not None and not self._task.done()
        if self._period_s and not running and time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + self._period_s
            self._task = asyncio.create_task(self._run(captioner, caption_one))

    async def _run(self, captioner: Captioner, caption_one: CaptionOne) -> None:
        try:
            entry, pixels = await asyncio.to_thread(captioner.golden_picture)
            result = await caption_one(pixels, captioner)
            if isinstance(result, ServingError):
                raise result
            captioner.check_golden_caption(entry, result)
        except (ServingError, OSError) as error:
            self._failure = BundleError(f"The model no longer captions its golden picture as it was recorded: {error}")
        else:
            self._failure = None
